"""x."""
def diff(a:str)->None:
    """X."""

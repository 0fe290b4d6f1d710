"""How many bytes of weights a pass of a graph of OpenVINO reads."""

from __future__ import annotations

from typing import Any

_WIDENS = {"Convert", "Multiply", "Subtract", "Reshape", "FakeQuantize", "Transpose", "FakeConvert"}
_ROWS_OF = "Gather"


def weight_bytes(graph: Any) -> int:
    """Stored bytes of all constants, scales and zero points included, that aren't read by rows alone (embeddings)."""
    total = 0
    for node in graph.get_ops():
        if node.get_type_name() == "Constant":
            if not all(_reads_rows(reader) for reader in node.output(0).get_target_inputs()):
                total += node.get_byte_size()
    return total


def _reads_rows(reader: Any) -> bool:
    """Whether all that this input ends in is a table of which some rows are taken."""
    node = reader.get_node()
    if node.get_type_name() == _ROWS_OF:
        return bool(reader.get_index() == 0)
    if node.get_type_name() not in _WIDENS or not _is_constant(node):
        return False
    return all(_reads_rows(following) for following in node.output(0).get_target_inputs())


def _is_constant(node: Any) -> bool:
    """Whether a node is computed from constants alone."""
    if node.get_type_name() == "Constant":
        return True
    return node.get_type_name() in _WIDENS and all(_is_constant(port.get_node()) for port in node.input_values())

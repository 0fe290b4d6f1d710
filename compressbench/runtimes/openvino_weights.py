"""How many bytes of weights a pass of a graph of OpenVINO reads."""

from __future__ import annotations

from typing import Any

_WIDENS = {"Convert", "Multiply", "Subtract", "Reshape", "FakeQuantize", "Transpose", "FakeConvert"}
_ROWS_OF = "Gather"


def weight_bytes(graph: Any) -> int:
    """Stored bytes of all constants, scales and zero points included, that aren't read by rows alone (embeddings)."""
    constants = [node for node in graph.get_ops() if node.get_type_name() == "Constant"]
    return sum(node.get_byte_size() for node in constants if not all(map(_reads_rows, _readers(node))))


def _readers(node: Any) -> list[Any]:
    return list(node.output(0).get_target_inputs())


def _reads_rows(reader: Any) -> bool:
    """Whether all that this input ends in is a table of which some rows are taken."""
    node = reader.get_node()
    if node.get_type_name() == _ROWS_OF:
        return bool(reader.get_index() == 0)
    if node.get_type_name() not in _WIDENS or not _is_constant(node):
        return False
    return all(map(_reads_rows, _readers(node)))


def _is_constant(node: Any) -> bool:
    """Whether a node is computed from constants alone."""
    if node.get_type_name() == "Constant":
        return True
    return node.get_type_name() in _WIDENS and all(_is_constant(port.get_node()) for port in node.input_values())

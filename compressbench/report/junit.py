"""A gate's outcome as JUnit XML, which CI servers draw: a suite per candidate, a case per goal."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping

from compressbench.core.names import one_line
from compressbench.report.gate import Gate
from compressbench.report.goal_judge import Judgement
from compressbench.report.goal_words import Units, judgement_text, limit_text, subject_text
from compressbench.report.recommend import Judged


def to_junit(found: Gate, units: Units) -> str:
    """Missed goals are failures, undecided ones skipped, required numbers that aren't there errors.

    Of a row that can't be believed the record itself is the one case.
    """
    root = ElementTree.Element("testsuites", {"name": "compressbench gate"})
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for each in found.judged:
        suite = _suite(each, units)
        counts = {name: count + int(suite.get(name, "0")) for name, count in counts.items()}
        root.append(suite)
    _set(root, {name: str(count) for name, count in counts.items()})
    ElementTree.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(judged: Judged, units: Units) -> ElementTree.Element:
    contender = judged.contender
    suite = ElementTree.Element("testsuite", {"name": one_line(f"{contender.recipe}: {contender.candidate}")})
    properties = ElementTree.SubElement(suite, "properties")
    said = {"model": contender.model, "steps": contender.steps, "run_id": contender.run_id}
    for name, value in {**said, "comparability_key": contender.comparability_key}.items():
        _set(ElementTree.SubElement(properties, "property"), {"name": name, "value": value})
    cases = _record_case(judged) if contender.faults else [_case(judged, each, units) for each in judged.judgements]
    for case in cases:
        suite.append(case)
    kinds = [child.tag for case in cases for child in case]
    _set(
        suite,
        {
            "tests": str(len(cases)),
            "failures": str(kinds.count("failure")),
            "errors": str(kinds.count("error")),
            "skipped": str(kinds.count("skipped")),
            "time": "0",
        },
    )
    return suite


def _record_case(judged: Judged) -> list[ElementTree.Element]:
    case = _empty_case(judged, "the record can be believed")
    reasons = "\n".join(map(one_line, judged.contender.faults))
    failure = ElementTree.SubElement(case, "failure", {"type": "fault"})
    _set(failure, {"message": judged.contender.faults[0]})
    failure.text = reasons
    return [case]


def _case(judged: Judged, found: Judgement, units: Units) -> ElementTree.Element:
    case = _empty_case(judged, f"{subject_text(found)} {limit_text(found, units)}")
    text = judgement_text(found, units)
    if found.outcome == "missed":
        failure = ElementTree.SubElement(case, "failure", {"type": found.goal.type})
        _set(failure, {"message": text})
        failure.text = one_line(text)
    elif found.is_missing and found.goal.type == "required":
        _set(ElementTree.SubElement(case, "error"), {"type": "missing measurement", "message": text})
    elif found.outcome == "undecided":
        _set(ElementTree.SubElement(case, "skipped"), {"message": text})
    else:
        ElementTree.SubElement(case, "system-out").text = one_line(text)
    return case


def _empty_case(judged: Judged, name: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"time": "0"})
    contender = judged.contender
    _set(case, {"classname": f"{contender.recipe}.{contender.candidate}", "name": name})
    return case


def _set(element: ElementTree.Element, attributes: Mapping[str, str]) -> None:
    """XML has no control characters, not even escaped."""
    for name, value in attributes.items():
        element.set(name, one_line(value))

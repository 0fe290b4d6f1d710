"""One use of a named thing, `{use: wanda, sparsity: 0.5}`, and the names a recipe may give."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, PrivateAttr, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from compressbench.core.names import SAFE_NAME
from compressbench.core.spec import Spec, canonical_json
from compressbench.recipe.plain_data import QUOTE_IT, to_plain
from compressbench.recipe.problems import shown

NAME_PATTERN = f"^(?:{SAFE_NAME.pattern})$"
NAME_RULE = "must be 1 to 128 letters, digits, '.', '_' and '-', and not start with '.'"

Name = Annotated[str, Field(strict=True, pattern=NAME_PATTERN)]


def wrong(what: str, *, at: str = "", got: str = "", do: str = "") -> PydanticCustomError:
    """An error that a reader understands as it stands; `at` is a key path below the field that is checked."""
    return PydanticCustomError("recipe", "{what}", {"what": what, "at": at, "got": got, "do": do})


def _plain_options(value: dict[str, Any]) -> dict[str, Any]:
    plain, problems = to_plain(value)
    if problems:
        raise wrong(problems[0].what, at=problems[0].key, got=problems[0].got)
    options: dict[str, Any] = plain
    return options


class Use(Spec):
    """One use of a method, task, runtime or meter: its name and its options.

    In a recipe it is a mapping such as `{use: wanda, sparsity: 0.5}`, or the bare name if there are no options.
    Two uses are equal if their names and options are; where they stand in a recipe makes no difference.
    """

    name: Name
    options: Annotated[dict[str, Any], AfterValidator(_plain_options)] = Field(default_factory=dict)
    _key_path: str = PrivateAttr(default="")

    @property
    def key_path(self) -> str:
        """Where the recipe says it, e.g. `candidates[1].compress[0]`; "" outside a recipe."""
        return self._key_path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Use) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, str]:
        return self.name, canonical_json(self.options)

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"use": self.name, **deepcopy(self.options)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        name = {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The name of a method, task, runtime or meter.",
        }
        mapping = {"type": "object", "properties": {"use": name}, "required": ["use"], "additionalProperties": True}
        return {"title": "Use", "description": "A name, or a name and its options.", "anyOf": [name, mapping]}


def _read_use(value: object) -> Use:
    if isinstance(value, Use):
        return value
    if not isinstance(value, str | Mapping):
        raise wrong("must be a name, or a mapping with the key 'use'", got=shown(value), do="Write {use: NAME, ...}.")
    if isinstance(value, Mapping) and "use" not in value:
        raise wrong("needs the key 'use' with a name", do="Write {use: NAME, ...}.")
    options = dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("use", value)
    at = "use" if isinstance(value, Mapping) else ""
    if not isinstance(name, str):
        raise wrong("must be text", at=at, got=shown(name), do=QUOTE_IT)
    if not SAFE_NAME.fullmatch(name):
        raise wrong(NAME_RULE, at=at, got=shown(name))
    return Use(name=name, options=options)


Used = Annotated[Use, BeforeValidator(_read_use)]

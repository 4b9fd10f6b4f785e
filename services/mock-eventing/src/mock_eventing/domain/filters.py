"""Knative's filter dialects for triggers, without CESQL."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern="^[a-z0-9]+$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1)]
Values = Annotated[dict[Name, Text], Field(min_length=1)]

type Attributes = Mapping[str, str]


class Filter(BaseModel):
    """One filter expression, in exactly one of the dialects.

    Attributes:
        exact, prefix, suffix: true where every named attribute is set, and equals, begins or ends with its text.
        all: true where every nested expression is true.
        any: true where at least one nested expression is true.
        not_: true where the nested expression is false.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    exact: Values | None = None
    prefix: Values | None = None
    suffix: Values | None = None
    all: Annotated[tuple["Filter", ...], Field(min_length=1)] | None = None
    any: Annotated[tuple["Filter", ...], Field(min_length=1)] | None = None
    not_: "Filter | None" = Field(default=None, alias="not")
    cesql: object = None

    @field_validator("cesql")
    @classmethod
    def _no_cesql(cls, _: object) -> object:
        msg = "CESQL is not supported; use exact, prefix, suffix, all, any and not"
        raise ValueError(msg)

    @model_validator(mode="after")
    def _one_dialect(self) -> Self:
        if len(self.model_fields_set) != 1:
            msg = "expected exactly one of exact, prefix, suffix, all, any and not"
            raise ValueError(msg)
        return self

    def matches(self, attributes: Attributes) -> bool:
        """Return whether an event with these attributes matches."""
        if self.exact:
            return matches_exactly(self.exact, attributes)
        if self.prefix:
            return all(attributes.get(name, "").startswith(text) for name, text in self.prefix.items())
        if self.suffix:
            return all(attributes.get(name, "").endswith(text) for name, text in self.suffix.items())
        if self.all:
            return matches_all(self.all, attributes)
        if self.any:
            return any(one.matches(attributes) for one in self.any)
        return self.not_ is not None and not self.not_.matches(attributes)


def matches_all(filters: Sequence[Filter], attributes: Attributes) -> bool:
    """Return whether every expression is true; without any expression the answer is True."""
    return all(one.matches(attributes) for one in filters)


def matches_exactly(expected: Mapping[str, str], attributes: Attributes) -> bool:
    """Return whether the attributes have these values; an empty value matches every value that is set."""
    return all(name in attributes and text in {"", attributes[name]} for name, text in expected.items())

"""Which events a trigger wants: Knative's filter dialects, but CESQL."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern="^[a-z0-9]+$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1)]
Values = Annotated[dict[Name, Text], Field(min_length=1)]

type Attributes = Mapping[str, str]


class Filter(BaseModel):
    """One expression: exactly one dialect of these.

    Attributes:
        exact, prefix, suffix: every named attribute is there and equals, begins or ends with its text.
        all: each of several expressions is true; `any`: one of them is.
        not_: the expression is false.
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
        msg = "CESQL is not spoken here; use exact, prefix, suffix, all, any and not"
        raise ValueError(msg)

    @model_validator(mode="after")
    def _one_dialect(self) -> Self:
        if len(self.model_fields_set) != 1:
            msg = "expected exactly one of exact, prefix, suffix, all, any and not"
            raise ValueError(msg)
        return self

    def matches(self, attributes: Attributes) -> bool:
        """Tell whether an event with these attributes is wanted."""
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
    """Tell whether every expression is true; of none, that is so."""
    return all(one.matches(attributes) for one in filters)


def matches_exactly(expected: Mapping[str, str], attributes: Attributes) -> bool:
    """Tell whether the attributes have these values, where an empty one stands for any that is there."""
    return all(name in attributes and text in {"", attributes[name]} for name, text in expected.items())

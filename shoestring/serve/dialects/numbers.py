"""Numbers of requests as JSON has them: 3.0 is a whole number; a top_p of 0 is the likeliest token."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

Number = TypeVar("Number")
LEAST_TOP_P = 1e-6


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[Number, BeforeValidator(_whole)]
"""An int; also one that a client writes with a point."""
AnyInt = Whole[int]
Count = Whole[Annotated[int, Field(ge=1)]]
"""1 or more."""
TopCount = Whole[Annotated[int, Field(ge=0, le=20)]]
"""The number of likeliest tokens to show."""
TopP = Annotated[float, Field(ge=0, le=1), AfterValidator(lambda share: max(share, LEAST_TOP_P))]

"""No sparsification: every value of the update is sent, quantised where ``bits`` says so."""

from typing import ClassVar, Literal

from federated.compression.base import Compression


class NoCompression(Compression):
    """All positions; without ``bits`` every value is sent as it is, and nothing stays behind."""

    name: Literal["none"] = "none"

    form_is_public: ClassVar[bool] = True
    sends_all: ClassVar[bool] = True

"""The one rule for the precision in which models are trained and answer."""


def choose_dtype(asked: str) -> str:
    """The precision to compute in: "auto" takes bfloat16 where the device has instructions for it.

    Processors without such instructions are many times slower in bfloat16, those with them up to twice as fast. The
    rule asks the device and no clock, so that the same machine always gives the same answer.

    Parameters
    ----------
    asked : {"auto", "float32", "bfloat16"}
    """
    return asked if asked != "auto" else "bfloat16" if _bfloat16_pays() else "float32"


def _bfloat16_pays() -> bool:
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    can: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not tell
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))

"""Numbers as a report says them: signs, units, and intervals in words."""

from inscl.core.stats import Estimate

_TOO_FEW = "too few to tell"  # rows or instructions for an interval that covers as often as it says


def spread(found: Estimate | None, *, sign: bool = False, digits: int = 1) -> str:
    """Both ends of an interval for a table; said where there are too few test rows for one.

    >>> spread(Estimate(mean=1, low=-0.5, high=2.25, n=40, over="test rows"), sign=True)
    '−0.5 to +2.2'
    >>> spread(Estimate(mean=1, low=-0.5, high=2.25, n=12, over="test rows"))
    'too few to tell'
    """
    if found is None or found.ends is None:
        return ""
    if found.over == "test rows" and not found.enough:
        return _TOO_FEW
    low, high = (minus(end, digits, sign=sign) for end in found.ends)
    return f"{low} to {high}"


def p_value(p: float | None, *, enough: bool) -> str:
    """An adjusted p-value for a table; none is given for too few streams.

    >>> p_value(0.0004, enough=True), p_value(0.0321, enough=True), p_value(0.01, enough=False)
    ('< 0.001', '0.032', 'too few to tell')
    """
    if p is None or not enough:
        return _TOO_FEW
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def minus(value: float, digits: int = 1, *, sign: bool = False) -> str:
    """A number with a true minus sign; zero has none.

    >>> minus(-1.26), minus(-0.01), minus(2, sign=True)
    ('−1.3', '0.0', '+2.0')
    """
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def thousands(value: float) -> str:
    """A large number, short.

    >>> thousands(950), thousands(27_345), thousands(3_400_000)
    ('950', '27\\xa0k', '3.4\\xa0M')
    """
    if value < 10_000:
        return f"{value:,.0f}"
    return f"{value / 1e3:,.0f}\u00a0k" if value < 1e6 else f"{value / 1e6:,.1f}\u00a0M"


def duration(seconds: float) -> str:
    """A time in the unit that fits.

    >>> duration(45), duration(600), duration(9000)
    ('45 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def plural(n: int, what: str) -> str:
    """A number of things.

    >>> plural(1, "stream"), plural(2, "stream")
    ('1 stream', '2 streams')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"

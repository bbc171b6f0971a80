"""Numbers formatted for users, the same way on every screen and page. No torch here.

A share above zero is never shown as 0 %, and one below one never as 100 %. A quantity is shown in
the largest unit that it fills (never "60 s"). For output that programs read, see `json_text` and
`escaping.write_csv`.
"""

import math
import re
from itertools import pairwise

from resnets.errors import UsageError

NONE = "–"  # for an unknown or undefined value
NO_BREAK = "\N{NO-BREAK SPACE}"

_DURATION = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_TEXT = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt])(i?)b", re.IGNORECASE)
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")  # each is 1,024 of the one before


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent, with `digits` decimals; a dash for None or NaN.

    >>> percent(0.5), percent(1), percent(9173 / 10000, 2), percent(None)
    ('50.0 %', '100.0 %', '91.73 %', '–')
    >>> percent(1 / 10000), percent(9999 / 10000)
    ('< 0.1 %', '> 99.9 %')
    """
    if share is None or math.isnan(share):
        return NONE
    text, least = f"{100 * share:.{digits}f}", 10**-digits
    if share > 0 and float(text) == 0:
        return f"< {least:.{digits}f} %"
    if share < 1 and float(text) == 100:
        return f"> {100 - least:.{digits}f} %"
    return f"{text.removeprefix('-') if float(text) == 0 else text} %"


def exact_percent(share: float) -> str:
    """A share in percent with all its digits, for values that a user chose.

    >>> exact_percent(0.02), exact_percent(0.005)
    ('2 %', '0.5 %')
    """
    return f"{100 * share:.10g} %"


def points(share: float, digits: int = 2) -> str:
    """A share as a number of percentage points, for ends of intervals and differences.

    >>> points(0.02284)
    '2.28'
    """
    text = f"{100 * share:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent_interval(low: float, high: float, digits: int = 2) -> str:
    """An interval of shares, in percent.

    >>> percent_interval(0.91170, 0.92253)
    '91.17 to 92.25'
    """
    return f"{points(low, digits)} to {points(high, digits)}"


def fraction(count: int, total: int) -> str:
    """A count and its total.

    >>> fraction(9173, 10000)
    '9,173/10,000'
    """
    return f"{count:,}/{total:,}"


def plural(number: int, noun: str, form: str = "") -> str:
    """A count with its noun.

    Args:
        number: the count.
        noun: in the singular.
        form: the plural, where it does not end in s, or in es after a hissing sound.

    >>> plural(1, "image"), plural(1200, "image"), plural(0, "class"), plural(2, "batch")
    ('1 image', '1,200 images', '0 classes', '2 batches')
    >>> plural(2, "entry", "entries")
    '2 entries'
    """
    form = form or noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{number:,} {noun if number == 1 else form}"


def value_in_data(value: float) -> str:
    """A value as data hold it, such as that of a pixel, with six significant digits at most.

    >>> value_in_data(65535), value_in_data(0.25)
    ('65,535', '0.25')
    """
    return f"{value:,.6g}"


def billions(number: float) -> str:
    """A large number in billions, for multiply-adds per second.

    >>> billions(105.2e9)
    '105 G'
    """
    return f"{number / 1e9:,.0f} G"


def millions(number: float) -> str:
    """A large number in millions, for weights and multiply-adds.

    >>> millions(1814073344)
    '1,814.1 M'
    """
    return f"{number / 1e6:,.1f} M"


def significant(value: float | None) -> str:
    """Three significant digits, with all digits before the point; a dash for None and NaN.

    >>> significant(1234.5), significant(12.34), significant(0.1234), significant(None)
    ('1,234', '12.3', '0.123', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    digits = 0 if value <= 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"


def per_second(number: float, noun: str = "images") -> str:
    """A rate per second.

    >>> per_second(1251.4)
    '1,251 images/s'
    """
    return f"{number:,.0f} {noun}/s"


def money(amount: float) -> str:
    """An amount of money, in the currency in which a price was given.

    >>> money(1234.5)
    '1,234.50'
    """
    return f"{amount:,.2f}"


def byte_size(number: float) -> str:
    """A number of bytes.

    >>> byte_size(1), byte_size(1023), byte_size(3 * 2**20), byte_size(1.25 * 2**30)
    ('1 byte', '1,023 bytes', '3.0 MiB', '1.2 GiB')
    """
    if number < 1024:
        return plural(round(number), "byte") if round(number) < 1024 else "1.0 KiB"
    for unit in _SIZES[1:]:
        number /= 1024
        if round(number, 1) < 1024 or unit == _SIZES[-1]:
            break
    return f"{number:,.1f} {unit}"


def bytes_of(size: str) -> int:
    """The bytes of a size as users write it.

    >>> bytes_of("50GB"), bytes_of("1.5 TB"), bytes_of("512MiB")
    (50000000000, 1500000000000, 536870912)

    Raises:
        UsageError: it is none.
    """
    match = _SIZE_TEXT.fullmatch(size.strip())
    if match is None:
        raise UsageError(f"{size}: not a size; write a number with KB, MB, GB or TB, as 50GB")
    power = "kmgt".index(match[2].lower()) + 1
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def milliseconds(seconds: float) -> str:
    """A short time in milliseconds.

    >>> milliseconds(0.01234)
    '12.34 ms'
    """
    return f"{1000 * seconds:,.2f} ms"


def duration(seconds: float) -> str:
    """A duration in its two largest units.

    >>> duration(0.25), duration(26), duration(75), duration(7265), duration(2 * 86400)
    ('0.2 s', '26 s', '1 min 15 s', '2 h 1 min', '2 d')
    """
    if seconds < 9.95:
        return f"{float(f'{seconds:.1f}'):g} s"
    for (unit, length), (smaller, part) in pairwise(_DURATION):
        whole, rest = divmod(round(seconds / part), length // part)
        if whole:
            return f"{whole:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{round(seconds)} s"


def time_limit(seconds: float) -> str:
    """A duration as users type it, rounded up to what they would choose for a limit.

    >>> time_limit(61), time_limit(3420), time_limit(20_500)
    ('2m', '1h', '6h')
    """
    minutes = math.ceil(seconds / 60)
    minutes = 5 * math.ceil(minutes / 5) if minutes > 10 else minutes
    in_minutes = minutes < 120 and minutes != 60
    return f"{minutes}m" if in_minutes else f"{math.ceil(minutes / 60)}h"


def without_separators(text: str) -> str:
    """Text without the commas that part the thousands of numbers; other commas stay.

    >>> without_separators("1,281,167 images"), without_separators("1,5h")
    ('1281167 images', '1,5h')
    """
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


def parse_duration(text: str) -> float:
    """Seconds of a duration as users type it, or as `duration` writes it.

    >>> parse_duration("20m"), parse_duration("1h30m"), parse_duration("1 min 15 s")
    (1200.0, 5400.0, 75.0)

    Raises:
        UsageError: it is not a duration, or is zero.
    """
    compact = without_separators("".join(text.split()))
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[smhd])", compact, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise UsageError(f"{text!r}: not a duration; write 90s, 20m, 1h30m or 2d")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total == 0:
        raise UsageError(f"{text!r}: a duration must be above 0")
    return total


def duration_of_flag(flag: str, text: str) -> float:
    """Seconds of a duration that a flag has.

    Raises:
        UsageError: it is not a duration, or is zero; the message names the flag.
    """
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{flag} {error}") from None

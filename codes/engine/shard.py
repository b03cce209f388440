"""Work shared out among processes that know nothing of one another: ``--shard I/N``.

Part I of N does every N-th item of a list, from the I-th on; the list depends on the options and the data alone. Parts
run at once or one after another, in any order, on any machines with one file system, without locks: no two write the
same file, but for records of the whole, whose content is the same in all, and every file is replaced as a whole
(:mod:`codes.files`). What random numbers an item gets depends on the item alone. So the parts together are what one
process makes, bit for bit.

``--shard merge/N``, last, makes no item: it names the parts that lack some, and writes what belongs to the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from codes.engine.options import option
from codes.errors import InputError, readable

Item = TypeVar("Item")

FLAG = "--shard"
FORM = "1/N..N/N|merge/N"
SHOWN = 3
"""How many lost items of a part, and how many such parts, are told of at most; the parts' numbers are all given."""


@dataclass(frozen=True)
class Shard:
    """A part of some work.

    Args:
        number: I, from 1; 0 where the parts are merged.
        count: N; the only part of one is the whole.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """'2/3' or 'merge/3'.

        Raises:
            InputError: neither, or no part of so many.
        """
        number, slash, count = text.partition("/")
        merges = number == "merge"
        if not (slash and count.isdecimal() and (merges or number.isdecimal())):
            raise InputError(text)
        shard = cls(0 if merges else int(number), int(count))
        if not (shard.count > 1 if merges else 1 <= shard.number <= shard.count):
            raise InputError(text)
        return shard

    def __str__(self) -> str:
        return f"{self.number or 'merge'}/{self.count}"

    @property
    def is_part(self) -> bool:
        """Whether others do the rest."""
        return self.number > 0 and self.count > 1

    @property
    def merges(self) -> bool:
        """Whether all is there, and is only to be looked at."""
        return self.number == 0

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this part; all of them for the whole and for the merging."""
        return items[self.number - 1 :: self.count] if self.number else items

    def require(self, what: str, there: dict[str, bool]) -> None:
        """Look, before merging, whether the parts have left everything.

        Args:
            what: the items, as 'samples'.
            there: item -> whether it is there, in the order of the list that was shared out.

        Raises:
            InputError: items are missing; names the parts that have to be made again.
        """
        lost = {}
        for number in range(1, self.count + 1):
            if missing := [name for name in Shard(number, self.count).of(list(there)) if not there[name]]:
                more = " ..." if len(missing) > SHOWN else ""
                lost[number] = f"{number}/{self.count} lacks {len(missing)} ({', '.join(missing[:SHOWN])}{more})"
        if lost:
            some = "; ".join([*lost.values()][:SHOWN]) + (" ..." if len(lost) > SHOWN else "")
            raise InputError(
                f"{sum(not found for found in there.values())} of {len(there)} {what} are missing: part "
                f"{readable(some)}; make these parts ({FLAG} {next(iter(lost))}/{self.count}; a "
                f"SLURM array: --array={','.join(map(str, lost))}), then merge again"
            )


WHOLE = Shard()


def shard_option(items: str, group: str = "") -> Any:
    """The option of a script whose ``items`` can be shared out."""
    about = f"of the {items} every N-th, from the I-th on; merge/N: see whether N parts are complete, and finish"
    return option(WHOLE, about, parse=Shard.parse, metavar=FORM, group=group)


def without_shard(words: Sequence[str]) -> list[str]:
    """The words of a command that makes the whole of which ``words`` make a part."""
    kept = [word for before, word in zip(["", *words], words, strict=False) if FLAG not in (before, word)]
    return [word for word in kept if not word.startswith(f"{FLAG}=")]

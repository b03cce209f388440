"""What the parts of a table leave (``--shard I/N``, :mod:`codes.engine.shard`): the figures of their samples."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codes.engine.shard import Shard
from codes.errors import InputError
from codes.files import write_text
from codes.report.page import View, as_data, from_data


@dataclass
class Measured:
    """What was measured of one sample, and can travel to another process.

    Args:
        name: the sample.
        values: row -> metric -> value; no metric where there is no reference.
        seconds: row -> seconds.
        pictures: (the word in the file name, row, uint8 ``(H, W, 3)`` B,G,R) of each picture, until they are saved.
        view: the pictures that were saved.
        fault: why the sample could not be read, if so.
    """

    name: str
    values: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    pictures: list[tuple] = dataclasses.field(default_factory=list)
    view: View | None = None
    fault: str = ""


@dataclass(frozen=True)
class Parts:
    """The parts of an evaluation: a file for each, and for each set of samples.

    Args:
        shard: which part this process makes, or that it merges.
        folder: of the files. Pictures are named as seen from it.
        command: that makes the whole: figures of another one count as missing.
    """

    shard: Shard
    folder: Path
    command: str

    def path(self, of: str, shard: Shard) -> Path:
        """The file of a part; ``of`` names the set of samples."""
        return self.folder / f"{of}_{shard.number}of{shard.count}.json"

    def write(self, of: str, samples: Sequence[Measured]) -> None:
        """Leave the figures of this part's samples."""
        found = [
            {"name": sample.name, "values": sample.values, "seconds": sample.seconds, "fault": sample.fault}
            | {"view": sample.view and as_data(sample.view, self.folder)}
            for sample in samples
        ]
        text = json.dumps({"command": self.command, "samples": found}, indent=1)  # NaN stays, unlike in JSON for others
        write_text(self.path(of, self.shard), text)

    def read(self, of: str, names: Sequence[str]) -> list[Measured]:
        """The figures of all samples, in their order.

        Raises:
            InputError: parts are missing, are of another command or other data, or have measured other things.
        """
        found: dict[str, Measured] = {}
        for number in range(1, self.shard.count + 1):
            part = Shard(number, self.shard.count)
            path = self.path(of, part)
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
                samples = data["samples"] if data["command"] == self.command else []
                samples = [
                    Measured(**one | {"view": one["view"] and from_data(one["view"], path.parent)}) for one in samples
                ]
            except FileNotFoundError:
                continue
            except (ValueError, LookupError, TypeError):
                raise InputError(f"{path} is damaged; make part {part} again") from None
            if [sample.name for sample in samples] == part.of(names):
                found |= {sample.name: sample for sample in samples}
        self.shard.require(f"samples of {of}", {name: name in found for name in names})
        measured = {
            tuple((row, *sample.values[row]) for row in sample.values) for sample in found.values() if not sample.fault
        }
        if len(measured) > 1:
            raise InputError(
                f"{self.folder}: parts of {of} have measured other rows or metrics than others (weights or LPIPS that "
                "not every machine has?); make them again"
            )
        return [found[name] for name in names]

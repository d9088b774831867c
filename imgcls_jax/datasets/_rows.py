"""Rows of a CSV, TSV or JSON-lines file: all with the offset they begin at, or one by offset."""

import contextlib
import csv
import io
import os
import re
from collections.abc import Callable, Iterator

from imgcls_jax import untrusted
from imgcls_jax.errors import DataError

TABLES, JSON_LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
MARK = b"\xef\xbb\xbf"  # of UTF-8, as spreadsheets write it
CHUNK = 4096  # bytes read for a row at first
ROW_LIMIT = 1 << 20


class Rows:
    """separator: "" for one JSON object per line, else of a table. UTF-8; other bytes are kept.

    wanted: (names of columns) -> whether they have all that is needed. Of comma, semicolon and tab,
    the separator is the one under which the first line of a table has that, whatever the name of
    the file; DataError if two of them do.
    """

    def __init__(self, path: str, wanted: Callable[[list[str]], bool] = lambda columns: True,
                 separator: str | None = None):
        self.path = path
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in TABLES + JSON_LINES:
            raise DataError(f"the manifest has the unknown extension {suffix!r}", where=path,
                            fix=f"use one of {', '.join(TABLES + JSON_LINES)}")
        with open(path, "rb") as file:
            head = file.read(1 << 16)
        if head.startswith(UTF_16):
            raise DataError("the manifest is in UTF-16", where=path,
                            fix="save it as UTF-8, in a spreadsheet as \"CSV UTF-8\"")
        if b"\r" in head[:-1] and b"\n" not in head:
            raise DataError("the lines end in a carriage return without a line feed", where=path,
                            fix="save it with line feeds: tr '\\r' '\\n' < OLD > NEW")
        first = head.removeprefix(MARK).split(b"\n", 1)[0].strip()
        if suffix in TABLES and re.fullmatch(rb'"?sep=.?"?', first, re.IGNORECASE):
            raise DataError(f"the first line is {first.decode(errors='replace')!r}, which only "
                            "spreadsheets know, not the names of the columns",
                            where=f"{path}, line 1", fix="remove this line")
        if separator is None:
            separator = "" if suffix in JSON_LINES else self._find_separator(wanted)
        self.separator = separator
        self.columns = self._first()

    def _find_separator(self, wanted: Callable[[list[str]], bool]) -> str:
        heads = {}
        for self.separator in SEPARATORS:
            with contextlib.suppress(DataError):  # a quote may be damaged under one of them alone
                heads[self.separator] = self._first()
        fitting = [separator for separator, columns in heads.items() if wanted(columns)]
        if len(fitting) > 1:
            raise DataError("the columns may be separated by "
                            f"{' or '.join(SEPARATORS[one] for one in fitting)}: all that are "
                            "needed are there under both", where=f"{self.path}, line 1",
                            fix="rename a column, so that its name has neither of them")
        return fitting[0] if fitting else max(SEPARATORS, key=lambda one: len(heads.get(one, ())))

    def _first(self) -> list[str]:
        """The names of the columns."""
        return next((list(row) for _, _, row in self._parsed()), [])

    def __iter__(self) -> Iterator[tuple[int, int, Callable]]:
        """(line, offset, column -> value or None) of each row, the line counted from 1."""
        for line, place, row in self._parsed():
            if self.separator:
                if not line or line == 1 or not row:  # the header, or an empty line
                    continue
                if len(row) != len(self.columns):
                    raise self.fault(line, f"the row has {len(row)} columns, the first line has "
                                           f"{len(self.columns)}")
                row = dict(zip(self.columns, row, strict=True))
            yield line, place, row

    def at(self, file: int, place: int) -> dict:
        """The row at an offset; file: a descriptor, which any thread may read from."""
        data = os.pread(file, CHUNK, place)
        while not self._ends(data):
            more = os.pread(file, 3 * len(data), place + len(data))
            if not more:
                break
            data += more
        text = data.removeprefix(MARK).decode("utf-8", "surrogateescape")
        if not self.separator:
            return untrusted.from_json(text.split("\n", 1)[0])
        # Not splitlines(), which also splits at form feeds and U+2028.
        lines = io.StringIO(text, newline="\n")
        row = next(csv.reader(lines, delimiter=self.separator, strict=True))
        return dict(zip(self.columns, row, strict=True))

    def fault(self, line: int, what: str, fix: str = "fix this line") -> DataError:
        return DataError(what, where=f"{self.path}, line {line}", fix=fix)

    def _ends(self, data: bytes) -> bool:
        """Whether the first row of the data is whole: it ends in a line feed outside of quotes."""
        begin, quotes = 0, 0
        while (end := data.find(b"\n", begin)) >= 0 and self.separator:
            quotes += data.count(b'"', begin, end)
            if not quotes % 2:
                break
            begin = end + 1
        return end >= 0

    def _parsed(self) -> Iterator[tuple[int, int, list | dict]]:
        """(line, offset, fields); the first row of a CSV holds the names of the columns."""
        with open(self.path, "rb") as file:
            end = 0

            def lines():
                nonlocal end
                while line := file.readline(ROW_LIMIT + 1):
                    if len(line) > ROW_LIMIT:
                        raise DataError(f"a row has over {ROW_LIMIT:,} bytes", where=self.path,
                                        fix="end every row with a line feed")
                    text = line.removeprefix(MARK) if not end else line
                    end += len(line)
                    yield text.decode("utf-8", "surrogateescape")

            if not self.separator:
                yield from self._json(lines(), lambda: end)
                return
            reader = csv.reader(lines(), delimiter=self.separator, strict=True)
            while True:
                place, line = end, reader.line_num + 1
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    raise self.fault(line, f"the line is damaged: {error}") from error
                if row is None:
                    return
                yield line, place, row

    def _json(self, lines: Iterator[str], end: Callable) -> Iterator[tuple[int, int, dict]]:
        place = 0
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = untrusted.from_json(line)
                except ValueError as error:
                    raise self.fault(number, f"the line is not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise self.fault(number, "the line is not a JSON object")
                yield number, place, row
            place = end()

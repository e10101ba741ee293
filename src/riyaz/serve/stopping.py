"""A stop string that is sought in the text of an answer while the text comes."""


class StopString:
    """Reads text piece by piece, each character once, however long the string is and however often it begins in the
    text (Knuth, Morris and Pratt 1977, "Fast pattern matching in strings", section 2). `matched` is the number of
    characters of its longest beginning that the text ends with."""

    def __init__(self, string: str) -> None:
        self.string, self.matched = string, 0
        self._borders = [0]  # by number of characters of a beginning, from 1 on; made as far as one was matched

    def read(self, text: str) -> int:
        """Read more text: the number of its characters up to the end of the string, 0 while the string is not there."""
        for count, character in enumerate(text, 1):
            while self.matched and self.string[self.matched] != character:
                self.matched = self._border(self.matched)
            self.matched += self.string[self.matched] == character
            if self.matched == len(self.string):
                return count
        return 0

    def _border(self, size: int) -> int:
        """Length of the longest shorter beginning of the string with which its first `size` characters end."""
        borders, string = self._borders, self.string
        while len(borders) < size:
            character, border = string[len(borders)], borders[-1]
            while border and string[border] != character:
                border = borders[border - 1]
            borders.append(border + (string[border] == character))
        return borders[size - 1]

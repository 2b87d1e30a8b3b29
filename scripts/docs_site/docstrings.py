"""Docstrings of efface for mkdocstrings: lines of settings become a list, source and differences become paragraphs."""

import re
from typing import Any

from griffe import Docstring, Extension, Object

_SETTING = re.compile(r"^(\*{0,2}[a-z_]\w*(?:, \w+)*): (.*)$")
_PART = re.compile(r"^(Source|Differs|ValueError|Raises): ")


class Settings(Extension):
    """Changes the docstring of every object before it is shown."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change one docstring.

        One that refers to the docstring of its module gets that text, too. A value without a docstring, such as a
        metric without settings, gets that of the module that is named after it.
        """
        if obj.docstring is None:
            if obj.is_attribute and obj.name == obj.module.name and obj.module.docstring is not None:
                obj.docstring = Docstring(obj.module.docstring.value, parent=obj)
            return
        refers = "module's docstring" in obj.docstring.value
        obj.docstring.value = as_markdown(obj.docstring.value)
        if refers and (module := obj.module.docstring) is not None:  # the module comes first, so it is changed already
            obj.docstring.value += f"\n\n*The module:* {module.value}"


def as_markdown(text: str) -> str:
    """Return a docstring in the project's form as Markdown.

    A line `name: text` begins an item of a list, and indented lines go on with it. A line that begins with `Source:` or
    `Differs:` begins a paragraph.
    """
    found: list[str] = []
    in_list = False
    for line in text.splitlines():
        setting, part = _SETTING.match(line), _PART.match(line)
        if setting:
            found += [*([] if in_list else [""]), f"- **`{setting[1]}`**: {setting[2]}"]
            in_list = True
        elif in_list and line.startswith("    "):
            found.append(line)
        else:
            if in_list or part:
                found.append("")
            in_list = False
            found.append(f"**{part[1]}:** {line[part.end() :]}" if part else line.strip() if part is None else line)
    return "\n".join(found)

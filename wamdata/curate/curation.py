"""Films -> shots -> which of them to keep: measured and judged, with a reason for each that is dropped.

    film --one pass of small frames--> cuts, samples --> spans --> scores --> rules --> copies of earlier shots

Nothing is cut, encoded or written: what comes out is a label table, which `wam ingest --labels` obeys. The first of
several copies is the one that is kept. Memory grows by the kilobyte a sample, five samples a second of one film, and by
what kept shots are known by.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from schemas.curate import CurateRules
from schemas.embodiment import load_embodiment
from schemas.episode import Episode, Footage
from schemas.errors import DataError, UsageError
from wamdata.curate.bars import Box, coarse_box, exact_box
from wamdata.curate.copies import print_of
from wamdata.curate.cuts import CutFinder
from wamdata.curate.embedding import Encoder, embedding_of
from wamdata.curate.known import KnownShots
from wamdata.curate.samples import Sampler, Samples
from wamdata.curate.scores import Scores, scores_of, why_dropped
from wamdata.curate.small import shown_size, small_frames, small_size
from wamdata.curate.spans import Span, seconds, spans_of
from wamdata.labels import extent
from wamdata.mapping import timed
from wamdata.readers import detect_reader
from wamdata.readers.base import EpisodeRef, Reader
from wamdata.source import Source


@dataclass(frozen=True)
class Shot:
    """A span of a film and what becomes of it.

    Args:
        first, stop: its frames, half-open.
        start_s, stop_s: from the film's start.
        reason: a code, "" where the shot is kept; `words` say it.
        scores: None of a span too short to be measured.
        captions: what stands beside the film and holds in the span.
    """

    number: int
    first: int
    stop: int
    start_s: float
    stop_s: float
    scores: Scores | None
    captions: tuple[str, ...] = ()
    reason: str = ""
    words: str = ""

    @property
    def seconds(self) -> float:
        return self.stop_s - self.start_s


@dataclass(frozen=True)
class Film:
    """All shots of a film; or none, and what is wrong with it."""

    key: str
    width: int = 0
    height: int = 0
    shots: tuple[Shot, ...] = ()
    problem: str = ""

    @property
    def seconds(self) -> float:
        return self.shots[-1].stop_s if self.shots else 0.0

    @property
    def kept(self) -> tuple[Shot, ...]:
        return tuple(s for s in self.shots if not s.reason)


@dataclass(frozen=True)
class Curation:
    """What was decided about every film of a source."""

    source: str
    reader: str
    rules: CurateRules
    films: tuple[Film, ...]


def curate(
    source: Source,
    rules: CurateRules,
    *,
    reader: str = "auto",
    camera: str | None = None,
    robot: str = "video_only",
    encoder: Encoder | None = None,
    on_film: Callable[[int, int], None] = lambda done, total: None,
) -> Curation:
    """Every film of a source, its shots, and which of them to keep.

    Args:
        camera: which of an episode's cameras is the film; needed where there are several.
        robot: its `native_hz` times pictures that hold no times, as ingest will.
        encoder: find shots that show the same by this too.

    Raises:
        UsageError: no film, several cameras and none named, or a package is missing.
    """
    module = detect_reader(source, reader)
    listing = module.list_episodes(source)
    embodiment = load_embodiment(robot)
    known = KnownShots(rules)
    films = []
    for done, ref in enumerate(listing.episodes, start=1):
        try:
            episode = timed(_read(module, ref), embodiment)
            films.append(_film(episode, _camera(episode, camera), rules, known, encoder))
        except DataError as error:
            films.append(Film(ref.key, problem=source.without_place(str(error))))
        on_film(done, len(listing.episodes))
    return Curation(str(source), listing.reader, rules, tuple(films))


def _read(module: Reader, ref: EpisodeRef) -> Episode:
    episode = module.read(ref)
    if not episode.videos:
        raise DataError(f"{ref.key}: holds no film. Leave it out.")
    return episode


def _camera(episode: Episode, name: str | None) -> Footage:
    if name is None and len(episode.videos) == 1:
        return next(iter(episode.videos.values()))
    if name not in episode.videos:
        asked = f"no camera {name!r}" if name else f"{len(episode.videos)} cameras"
        raise UsageError(f"{episode.key}: {asked}; it has {', '.join(episode.videos)}. Give --camera one of them.")
    return episode.videos[name]


def _film(episode: Episode, footage: Footage, rules: CurateRules, known: KnownShots, encoder: Encoder | None) -> Film:
    if not len(footage.t_ns):
        raise DataError(f"{episode.key}: holds no frames. Leave it out.")
    samples, cuts = _one_pass(footage)
    spans = spans_of(samples, cuts, footage.t_ns, rules)
    size = shown_size(footage)
    shots = []
    for number, (span, crop) in enumerate(_with_bars(footage, samples, spans), start=1):
        here = samples.of(span.first, span.stop)
        scores = scores_of(samples, here, crop)
        shot = _shot(number, span, episode, footage, scores)
        found = why_dropped(span.kind, shot.seconds, size, scores, rules)
        if found is None:
            look = None if encoder is None else embedding_of(footage, span.first, span.stop, encoder)
            name = f"{episode.key}, shot {number} ({shot.start_s:.1f} s to {shot.stop_s:.1f} s)"
            found = known.meet(name, print_of(samples, here), look)
        shots.append(shot if found is None else replace(shot, reason=found[0], words=found[1]))
    return Film(episode.key, *size, tuple(shots))


def _one_pass(footage: Footage) -> tuple[Samples, list[int]]:
    """Samples and cuts of a film, whose frames are decoded once and dropped."""
    sampler, finder = Sampler(), CutFinder()
    for index, picture in enumerate(small_frames(footage)):
        finder.see(index, picture, sampler.see(index, int(footage.t_ns[index]), picture))
    return sampler.samples(), finder.finish()


def _with_bars(footage: Footage, samples: Samples, spans: list[Span]) -> Iterator[tuple[Span, Box | None]]:
    """Each span with the picture inside its bars; bars alike are placed to the pixel once."""
    placed: dict[Box, Box] = {}
    for span in spans:
        coarse = coarse_box(samples, samples.of(span.first, span.stop)) if span.kind == "shot" else None
        if coarse is not None and coarse not in placed:
            placed[coarse] = exact_box(footage, coarse, small_size(footage), span.first, span.stop)
        yield span, placed.get(coarse) if coarse else None


def _shot(number: int, span: Span, episode: Episode, footage: Footage, scores: Scores | None) -> Shot:
    start, _ = extent(episode)
    first_ns = int(footage.t_ns[span.first])
    stop_ns = first_ns + round(seconds(span.first, span.stop, footage.t_ns) * 1e9)
    held = [t.text for t in episode.texts if t.start_ns < stop_ns and t.stop_ns > first_ns]
    return Shot(
        number, span.first, span.stop, (first_ns - start) / 1e9, (stop_ns - start) / 1e9, scores,
        tuple(dict.fromkeys(held)),
    )  # fmt: skip

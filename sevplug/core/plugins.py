"""Finding plug-ins, switching them on and off, and naming the one that fails.

Built-in plug-ins come through the same entry-point group as anyone's.  Those of sevplug's own distribution are on
unless ``-P no:NAME`` leaves them out; another distribution's are on with ``-P NAME``.  What is off is not imported.
One manager belongs to one machine; there is no global one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import attrs
import pluggy

from sevplug.core import hookspecs
from sevplug.core.errors import PluginError, SevplugError
from sevplug.core.requirements import unmet

GROUP = "sevplug"
OWN_DISTRIBUTION = "sevplug"


@attrs.frozen
class PluginInfo:
    """An installed plug-in: its name, the module that holds it, and the distribution that brought it."""

    name: str
    module: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint = attrs.field(repr=False, eq=False)

    @property
    def origin(self) -> str:
        return f"{self.distribution} {self.version}"

    @property
    def on_by_default(self) -> bool:
        return self.distribution == OWN_DISTRIBUTION


@attrs.frozen
class Selection:
    """What the user said with ``-P NAME`` (added) and ``-P no:NAME`` (blocked)."""

    added: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Selection:
        """``-P`` words in order; the last one of a name wins.  `PluginError` for an empty name."""
        wanted: dict[str, bool] = {}
        for word in words:
            name = word.removeprefix("no:")
            if not name:
                raise PluginError(f"-P {word}: expected the name of a plug-in, or no: and a name")
            wanted[name] = name == word
        return cls(
            frozenset(name for name, on in wanted.items() if on),
            frozenset(name for name, on in wanted.items() if not on),
        )

    def wants(self, info: PluginInfo) -> bool:
        """Whether ``info`` is on."""
        return info.name not in self.blocked and (info.on_by_default or info.name in self.added)


def discover() -> list[PluginInfo]:
    """Every installed plug-in, sorted by name, none imported."""
    found = []
    # A distribution parses its whole metadata, read-me included, each time that it is asked for one field.
    told: dict[importlib.metadata.Distribution | None, tuple[str, str]] = {None: ("(no distribution)", "")}
    for entry_point in importlib.metadata.entry_points(group=GROUP):
        dist = entry_point.dist
        if dist is not None and dist not in told:
            metadata = dist.metadata
            told[dist] = metadata["Name"], metadata["Version"]
        found.append(PluginInfo(entry_point.name, entry_point.module, *told[dist], entry_point))
    return sorted(found, key=lambda info: (info.name, info.distribution))


def select(installed: Iterable[PluginInfo], selection: Selection) -> list[PluginInfo]:
    """The plug-ins that are on.  `PluginError` for a name nobody brings, or that two distributions bring."""
    known: dict[str, list[PluginInfo]] = {}
    for info in installed:
        known.setdefault(info.name, []).append(info)
    for name in sorted(selection.added | selection.blocked):
        if name not in known:
            flag = f"-P {name}" if name in selection.added else f"-P no:{name}"
            raise PluginError(f"{flag}: no such plug-in is installed; there are {', '.join(sorted(known))}")
    chosen = []
    for name, infos in known.items():
        wanted = [info for info in infos if selection.wants(info)]
        if len(wanted) > 1 or (wanted and len(infos) > 1):
            origins = " and ".join(info.origin for info in infos)
            raise PluginError(
                f"plug-in {name!r} is there twice, from {origins}: uninstall one, or leave both out with -P no:{name}"
            )
        chosen.extend(wanted)
    return chosen


class PluginManager(pluggy.PluginManager):
    """pluggy's manager with sevplug's hooks, plus the knowledge of which distribution a plug-in came from."""

    def __init__(self) -> None:
        super().__init__(hookspecs.PROJECT)
        self.add_hookspecs(hookspecs)
        self.infos: dict[str, PluginInfo] = {}
        self._modules: dict[str, str] = {}

    def load(self, info: PluginInfo) -> None:
        """Import and register one installed plug-in; `PluginError` names it when that fails.

        The entry point names a module, or a class that is made anew for each manager and so may keep state.  One
        whose distribution requires another release of sevplug is not imported.
        """
        if not info.on_by_default:
            _check_release(info)
        try:
            plugin = info.entry_point.load()
            if isinstance(plugin, type):
                plugin = plugin()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plug-in {info.name!r} from {info.origin} cannot be imported "
                f"({_describe(error)}); leave it out with -P no:{info.name}"
            ) from error
        self.infos[info.name] = info
        self.add(plugin, info.name, info.origin)

    def add(self, plugin: object, name: str, origin: str = "this process") -> None:
        """Register a plug-in object or module under ``name``; `PluginError` when its hooks do not fit."""
        if self.has_plugin(name):
            raise PluginError(f"plug-in {name!r} is there twice; the second comes from {origin}")
        try:
            self.register(plugin, name)
        except (Exception, SystemExit) as error:  # it looks at every attribute, which can run code of the plug-in
            raise PluginError(
                f"plug-in {name!r} from {origin} does not fit this sevplug ({_one_line(error)}); "
                f"leave it out with -P no:{name}"
            ) from error
        module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
        self._modules[module] = name
        package = module.partition(".")[0]
        if package != hookspecs.__name__.partition(".")[0]:
            # Code beside the plug-in's own module, such as its devices, is the plug-in's too.
            self._modules.setdefault(package, name)

    def ready(self) -> None:
        """All plug-ins are in: publish their hook specifications, and refuse hooks that nobody specified."""
        with self.explained():
            self.hook.add_hookspecs(manager=self)
            self.check_pending()

    def unregister(self, plugin: Any | None = None, name: str | None = None) -> Any | None:
        """As pluggy's, which `set_blocked` calls too; but what the user has switched on no plug-in switches off.

        `PluginError` names both.
        """
        name = self.get_name(plugin) if name is None else name
        by = self._caller()
        if name is not None and self.has_plugin(name) and by is not None:
            raise PluginError(
                f"plug-in {by!r}{self._origin(by)} does not work beside plug-in {name!r}{self._origin(name)}; "
                f"leave one of them out with -P no:{by} or -P no:{name}"
            )
        return super().unregister(plugin, name)

    @property
    def names(self) -> list[str]:
        """The names of the registered plug-ins, sorted."""
        return sorted(name for name, plugin in self.list_name_plugin() if plugin is not None)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn an exception that a plug-in let escape, `SystemExit` too, into one line that names the plug-in."""
        try:
            yield
        except (Exception, SystemExit) as error:
            blamed = self.blame(error)
            if blamed is None:
                raise
            raise blamed from error

    def blame(self, error: BaseException) -> PluginError | None:
        """Name the plug-in whose code raised ``error``, and its hook, as one line; None when no plug-in did.

        What sevplug raises on purpose (`SevplugError`) says enough by itself and is left alone.
        """
        if isinstance(error, SevplugError):
            return None
        if isinstance(error, pluggy.PluginValidationError):
            name = self.get_name(error.plugin) or "?"
            return PluginError(
                f"plug-in {name!r}{self._origin(name)} does not fit this sevplug and the plug-ins that are on "
                f"({_one_line(error)}); leave it out with -P no:{name}"
            )
        hooks = self._hooks_by_code()
        culprit = hook = None
        place = ""
        for frame, line in _frames(error):
            owner, implemented = hooks.get(frame.f_code, (None, None))
            owner = owner or self._owner(frame.f_globals.get("__name__", ""))
            if owner is None:
                continue
            # Code beside a hook is called by the hook, unless it is another plug-in's.
            hook = implemented or (hook if owner == culprit else None)
            culprit, place = owner, f", {Path(frame.f_code.co_filename).name}:{line}"
        if culprit is None:
            return None
        blamed = PluginError(
            f"plug-in {culprit!r}{self._origin(culprit)} failed{f' in {hook}' if hook else ''} "
            f"({_describe(error)}{place}); leave it out with -P no:{culprit}"
        )
        blamed.__cause__ = error
        return blamed

    def _hooks_by_code(self) -> dict[CodeType, tuple[str, str]]:
        """The code of each implementation, with its plug-in and its hook."""
        found = {}
        for name, plugin in self.list_name_plugin():
            for caller in self.get_hookcallers(plugin) or () if plugin is not None else ():
                for implementation in caller.get_hookimpls():
                    code = getattr(implementation.function, "__code__", None)
                    if implementation.plugin is plugin and code is not None:
                        found[code] = (name, caller.name)
        return found

    def _caller(self) -> str | None:
        """The plug-in whose code is running, the innermost one; None where none is."""
        frame: FrameType | None = sys._getframe(1)
        owner = None
        while frame is not None and owner is None:
            owner = self._owner(frame.f_globals.get("__name__", ""))
            frame = frame.f_back
        return owner

    def _owner(self, module: str) -> str | None:
        """The plug-in that ``module`` or a package around it belongs to."""
        while module:
            if module in self._modules:
                return self._modules[module]
            module = module.rpartition(".")[0]
        return None

    def _origin(self, name: str) -> str:
        info = self.infos.get(name)
        return f" from {info.origin}" if info is not None else ""


def load_plugins(selection: Selection = Selection(), *others: object) -> PluginManager:
    """A manager with every installed plug-in that ``selection`` wants, and ``others``, which are not installed.

    Each of those is a module, an object or a class, as an entry point would name it; `plug_in_name` names it.
    """
    manager = PluginManager()
    for info in select(discover(), selection):
        manager.load(info)
    for other in others:
        manager.add(other() if isinstance(other, type) else other, plug_in_name(other))
    manager.ready()
    return manager


def _check_release(info: PluginInfo) -> None:
    """`PluginError` when the plug-in's distribution requires another release of sevplug than this."""
    dist = info.entry_point.dist
    running = importlib.metadata.version(OWN_DISTRIBUTION)
    wanted = unmet((dist.requires if dist is not None else None) or (), OWN_DISTRIBUTION, running)
    if wanted is not None:
        raise PluginError(
            f"plug-in {info.name!r} from {info.origin} is for {OWN_DISTRIBUTION} {wanted}, found {running}: "
            f"install releases that fit, or leave it out with -P no:{info.name}"
        )


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Where ``error`` came through, from the outside in: frames, each with the number of its line."""
    at = error.__traceback__
    while at is not None:
        yield at.tb_frame, at.tb_lineno
        at = at.tb_next


def plug_in_name(plugin: object) -> str:
    """What a plug-in that no entry point names is called: its attribute ``name``, else its module's or class's name."""
    name = getattr(plugin, "name", None)
    if isinstance(name, str):
        return name
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    return (plugin if isinstance(plugin, type) else type(plugin)).__name__


def _describe(error: BaseException) -> str:
    """The class and the text of ``error``, where it has one."""
    return f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

"""The loader, on distributions that are written to disk: one bad plugin is listed, the others work."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

import pytest

from swarmcore.errors import ConfigurationError
from swarmcore.plugin.loader import installed, load
from swarmcore.plugin.lock import PluginLock, lock_installed
from swarmcore.plugin.plugin_set import PluginSet, PluginState

_numbers = itertools.count()

RACK = """
    from swarmcore.plugin import hookimpl

    class Rack:
        name, order, dynamic = "{name}", {order}, False
        def prepare(self, group, view): return None
        def explain(self, nodes): return "wrong rack"

    @hookimpl
    def swarmcore_scheduler_filters():
        return [Rack()]
"""


class Site:
    """A folder as pip would fill it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, name: str, source: str, *, version: str = "1.0.0", requires: str = "", distribution: str = ""
    ) -> None:
        module = f"plugin_under_test_{next(_numbers)}"
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        dist = distribution or name
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {dist}", f"Version: {version}", f"Summary: The plugin {name}"]
        if requires:
            lines.append(f"Requires-Dist: {requires}")
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[swarmcore.v1]\n{name} = {module}\n")
        (info / "RECORD").write_text(f"{module}.py,sha256=x,1\n")

    def load(self, **options: object) -> PluginSet:
        return load(role="manager", path=[str(self.folder)], **options)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Site(tmp_path)


def rack(name: str = "rack", order: int = 500) -> str:
    return RACK.replace("{name}", name).replace("{order}", str(order))


def state(plugins: PluginSet, name: str) -> tuple[PluginState, str]:
    report = plugins.report(name)
    assert report is not None
    return report.state, report.error


def test_metadata_without_a_summary_is_enough(site: Site) -> None:
    site.install("rack", rack())
    metadata = next(site.folder.glob("rack-*.dist-info")) / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: rack\nVersion: 1.0.0\n")

    assert state(site.load(), "rack") == (PluginState.OK, "")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1/0", "ZeroDivisionError: division by zero"),
        ("this is no python", "SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_fails_to_import_is_listed_and_the_rest_works(site: Site, source: str, error: str) -> None:
    site.install("broken", source, version="0.3.0")
    site.install("rack", rack())

    plugins = site.load()

    found, text = state(plugins, "broken")
    assert found is PluginState.ERROR
    assert text.startswith(error)
    assert state(plugins, "rack") == (PluginState.OK, "")
    assert plugins.capabilities == {"filter/rack"}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("@hookimpl\nasync def swarmcore_scheduler_filters(): return []", "must not be async"),
        ("@hookimpl\ndef swarmcore_scheduler_filters(): yield 1", "must not be a generator"),
        ("@hookimpl\ndef swarmcore_scheduler_filter(): return []", "did you mean 'swarmcore_scheduler_filters'?"),
        ("@hookimpl\ndef swarmcore_scheduler_filters(view): return []", "has no argument 'view'"),
        ("@hookimpl(tryfirst=True)\ndef swarmcore_scheduler_filters(): return []", "must not ask for an order"),
        ("def swarmcore_scheduler_filters(): return []", "put @hookimpl before it"),
        ("@hookimpl\ndef swarmcore_scheduler_filters(): return 7", "returned int, not a list"),
        ("@hookimpl\ndef swarmcore_scheduler_filters(): return [object()]", "whose name is None"),
        ("@hookimpl\ndef swarmcore_scheduler_filters(): 1/0", "ZeroDivisionError"),
    ],
)
def test_an_implementation_that_would_be_taken_otherwise_than_meant_is_refused(
    site: Site, source: str, error: str
) -> None:
    site.install("odd", "from swarmcore.plugin import hookimpl\n" + source)

    found, text = state(site.load(), "odd")

    assert found is PluginState.ERROR
    assert error in text


def test_a_name_claimed_twice_is_a_conflict_for_both(site: Site) -> None:
    site.install("rack", rack(), distribution="acme-rack")
    site.install("rack", rack(), distribution="other-rack")

    plugins = site.load()

    assert [report.state for report in plugins.loaded] == [PluginState.CONFLICT, PluginState.CONFLICT]
    assert "'acme-rack', 'other-rack'" in plugins.loaded[0].error
    assert not plugins.filters


def test_two_offers_of_one_capability_put_both_plugins_in_conflict(site: Site) -> None:
    site.install("one", rack("same"))
    site.install("two", rack("same"))

    plugins = site.load()

    assert {report.state for report in plugins.loaded} == {PluginState.CONFLICT}
    assert not plugins.capabilities


def test_a_plugin_for_another_core_says_both_versions(site: Site) -> None:
    site.install("rack", rack(), requires="swarmcore>=9.1")

    found, text = state(site.load(core_version="0.1.0"), "rack")

    assert (found, text) == (PluginState.INCOMPATIBLE, "rack 1.0.0 needs swarmcore>=9.1, this is 0.1.0")


def test_a_disabled_plugin_is_never_imported(site: Site) -> None:
    site.install("bomb", "raise RuntimeError('imported')")

    plugins = site.load(disabled=frozenset({"bomb"}))

    assert state(plugins, "bomb") == (PluginState.DISABLED, "")


def test_safe_mode_leaves_every_policy_out(site: Site) -> None:
    site.install("rack", rack())

    plugins = site.load(safe_mode=True)

    assert state(plugins, "rack")[0] is PluginState.DISABLED
    assert not plugins.filters


def test_what_the_profile_needs_and_nobody_provides_is_missing(site: Site) -> None:
    plugins = site.load(required=frozenset({"filter/gpu"}))

    assert state(plugins, "filter/gpu")[0] is PluginState.MISSING
    assert plugins.why_unavailable("filter/gpu") == "filter/gpu is not available: no plugin provides it"


def test_filters_come_by_order_whatever_their_names(site: Site) -> None:
    site.install("a", rack("late", 900))
    site.install("b", rack("early", 100))

    plugins = site.load()

    assert [each.name for each in plugins.filters] == ["early", "late"]


def test_a_lock_blocks_what_it_does_not_name_and_what_was_changed(site: Site) -> None:
    site.install("rack", rack())
    lock = lock_installed(installed(path=[str(site.folder)]))
    site.install("stranger", rack("stranger"))
    (site.folder / "rack-1.0.0.dist-info" / "RECORD").write_text("other\n")

    plugins = site.load(lock=lock)

    assert state(plugins, "stranger") == (PluginState.BLOCKED, "not in the plugin lock")
    assert state(plugins, "rack") == (
        PluginState.BLOCKED,
        "its files are not those of the plugin lock (RECORD differs)",
    )


def test_a_lock_survives_being_written_and_read(site: Site, tmp_path: Path) -> None:
    site.install("rack", rack())
    lock = lock_installed(installed(path=[str(site.folder)]))
    path = tmp_path / "plugins.lock"
    path.write_text(lock.text())

    assert PluginLock.read(path) == lock


def test_an_unreadable_lock_stops_the_start_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "plugins.lock"
    path.write_text("[[plugin]\n")

    with pytest.raises(ConfigurationError, match=r"plugins\.lock' can't be read"):
        PluginLock.read(path)


def test_the_next_set_keeps_counts_and_gets_the_next_number(site: Site) -> None:
    site.install("rack", rack())
    first = site.load()
    first.meters["filter/rack"].count(7)

    second = site.load(previous=first)

    assert (first.number, second.number) == (1, 2)
    report = second.report("rack")
    assert report is not None
    assert report.calls == 7

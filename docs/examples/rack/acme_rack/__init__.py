from swarmcore.plugin import hookimpl


class Rack:
    """Keeps a service inside the rack named by its label `rack`."""

    name, order, dynamic = "rack", 500, False

    def prepare(self, group, view):
        rack = group.labels.get("rack")
        return view.label("rack", rack) if rack else None

    def explain(self, nodes):
        return f"wrong rack on {nodes} node{'s' if nodes != 1 else ''}"


@hookimpl
def swarmcore_scheduler_filters():
    return [Rack()]

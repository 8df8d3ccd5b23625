from acme_rack import Rack

from swarmcore.testing.scheduling import FilterContract, make_group, make_node, make_view


class TestRack(FilterContract):
    """Every filter of this kind must pass these; the methods below only say what to try it on."""

    def make_filter(self):
        return Rack()

    def make_group(self):
        return make_group(labels={"rack": "r7"})

    def make_view(self):
        return make_view([make_node("a", labels={"rack": "r7"}), make_node("b", labels={"rack": "r8"}), make_node("c")])

    def expected(self, node, group):
        return node.id == "a"


def test_it_says_on_how_many_nodes_the_rack_is_wrong():
    assert Rack().explain(1) == "wrong rack on 1 node"
    assert Rack().explain(2) == "wrong rack on 2 nodes"

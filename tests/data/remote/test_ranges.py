"""Requests fetch every byte that is needed, once, and little else."""

from hypothesis import given
from hypothesis import strategies as st

from resnets.data.remote.ranges import Place, Request, planned

PLACES = st.builds(Place, st.sampled_from("ab"), st.integers(0, 300), st.integers(1, 40), st.none())
BOUNDS = {"largest": st.integers(1, 120), "gap": st.integers(0, 30)}


def bytes_of(item: Place | Request) -> list[tuple[str, int]]:
    start = item.offset if isinstance(item, Place) else item.start
    return [(item.file, number) for number in range(start, item.stop)]


@given(places=st.lists(PLACES, max_size=12), **BOUNDS)
def test_every_place_is_in_one_request_and_no_byte_in_two(
    places: list[Place], largest: int, gap: int
) -> None:
    requests = planned(places, largest, gap)
    fetched = [byte for request in requests for byte in bytes_of(request)]
    assert len(fetched) == len(set(fetched))
    assert {byte for place in places for byte in bytes_of(place)} <= set(fetched)
    content = {name: bytes(n % 251 + ord(name) % 5 for n in range(400)) for name in "ab"}
    cut = [request.cut(content[request.file][request.start : request.stop]) for request in requests]
    assert sorted(place for parts in cut for place in parts) == sorted(set(places))
    for parts in cut:
        for place, data in parts.items():
            assert data == content[place.file][place.offset : place.stop]


@given(places=st.lists(PLACES, max_size=12), **BOUNDS)
def test_requests_stay_within_the_bounds(places: list[Place], largest: int, gap: int) -> None:
    needed = {byte for place in places for byte in bytes_of(place)}
    for request in planned(places, largest, gap):
        wasted = [byte for byte in bytes_of(request) if byte not in needed]
        assert len(wasted) <= gap * (len(request.places) - 1)
        if request.stop - request.start > largest:
            assert not any(is_joint(place.stop, request) for place in request.places)


def is_joint(byte: int, request: Request) -> bool:
    """Whether a request could be parted there without cutting a place."""
    inside = request.start < byte < request.stop
    return inside and all(byte <= p.offset or byte >= p.stop for p in request.places)


@given(places=st.lists(PLACES, min_size=1, max_size=12), **BOUNDS)
def test_what_is_needed_first_is_fetched_first(places: list[Place], largest: int, gap: int) -> None:
    firsts = [
        min(places.index(place) for place in request.places)
        for request in planned(places, largest, gap)
    ]
    assert firsts == sorted(firsts)
    assert firsts[0] == 0

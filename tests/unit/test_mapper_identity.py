"""Who is who, by what was seen together."""

from mapper.identity import BESIDE_MAX, Known, anchor, customer_id, note, owners, shared_id, successors
from mapper.interaction import Seen

MAIL, OTHER, PHONE, EXTERNAL = "email:a@b.example", "email:c@d.example", "phone:+15005550010", "external:7"


def seen(*keys: str, ms: int = 5) -> dict[str, Seen]:
    return {key: Seen(ms, f"EV{ms}", ms, f"EV{ms}") for key in keys}


def after(*interactions: dict[str, Seen]) -> tuple[dict[str, Known], dict[str, str]]:
    """What is known after these, one after the other, and the customers that are no more."""
    known: dict[str, Known] = {}
    gone: dict[str, str] = {}
    for one in interactions:
        note(known, one)
        found = owners(known, {known[key].customer for key in known})
        gone.update(successors(known, found))
        for key, id_ in found.items():
            known[key].customer = id_
    return known, gone


def whose(*interactions: dict[str, Seen]) -> dict[str, str]:
    return {key: one.customer for key, one in after(*interactions)[0].items()}


def test_a_customer_is_named_by_the_identifier_seen_first_and_mail_goes_before_phone():
    assert whose(seen(PHONE, MAIL)) == {PHONE: customer_id(MAIL), MAIL: customer_id(MAIL)}
    assert whose(seen(MAIL, ms=5) | seen(PHONE, ms=1))[MAIL] == customer_id(PHONE)


def test_a_customer_known_by_phone_takes_the_mail_that_comes_with_it_and_keeps_the_name():
    known, gone = after(seen(PHONE, ms=1), seen(PHONE, MAIL, ms=2))

    assert known[MAIL].customer == known[PHONE].customer == customer_id(PHONE)
    assert gone == {}


def test_an_earlier_identifier_heard_of_late_names_the_customer_anew():
    known, gone = after(seen(MAIL, EXTERNAL, ms=5), seen(EXTERNAL, ms=1))

    assert known[MAIL].customer == customer_id(EXTERNAL)
    assert gone == {customer_id(MAIL): customer_id(EXTERNAL)}


def test_two_customers_seen_together_are_one_and_it_is_told_which_is_no_more():
    known, gone = after(
        seen(MAIL, ms=1), seen(OTHER, ms=2), seen(MAIL, EXTERNAL, ms=3), seen(OTHER, EXTERNAL, ms=4)
    )

    assert {one.customer for one in known.values()} == {customer_id(MAIL)}
    assert gone == {customer_id(OTHER): customer_id(MAIL)}


def test_a_phone_seen_with_two_customers_is_shared_and_neithers():
    known, gone = after(seen(PHONE, ms=1), seen(PHONE, MAIL, ms=2), seen(PHONE, OTHER, ms=3))

    assert known[PHONE].customer == shared_id(PHONE)
    assert (known[MAIL].customer, known[OTHER].customer) == (customer_id(MAIL), customer_id(OTHER))
    assert gone == {customer_id(PHONE): customer_id(MAIL)}  # the contact had the mail, and keeps it


def test_a_shared_phone_is_one_customers_again_once_the_two_are_one():
    known, gone = after(seen(PHONE, MAIL, ms=1), seen(PHONE, OTHER, ms=2), seen(MAIL, OTHER, ms=3))

    assert {one.customer for one in known.values()} == {customer_id(MAIL)}
    assert gone == {customer_id(OTHER): customer_id(MAIL), shared_id(PHONE): customer_id(MAIL)}


def test_a_phone_says_whose_an_interaction_is_only_where_nothing_stronger_does():
    assert anchor(seen(PHONE, ms=1) | seen(MAIL, ms=2)) == MAIL
    assert anchor(seen(PHONE)) == PHONE
    assert anchor({}) == ""


def test_a_customer_of_whom_not_all_is_given_keeps_the_name():
    known = {MAIL: Known(Seen(5, "EV5", 5, "EV5"), {EXTERNAL}, "tajo-known")}

    assert owners(known, set()) == {MAIL: "tajo-known"}
    assert owners(known, {"tajo-known"}) == {MAIL: customer_id(MAIL)}


def test_what_a_switchboard_was_seen_with_is_bounded_and_the_same_in_any_order():
    mails = [f"email:{number}@b.example" for number in range(BESIDE_MAX + 50)]
    forth, back = (
        after(*(seen(PHONE, mail) for mail in mails)),
        after(*(seen(PHONE, mail) for mail in reversed(mails))),
    )

    assert forth[0][PHONE].beside == back[0][PHONE].beside
    assert len(forth[0][PHONE].beside) == BESIDE_MAX
    assert forth[0][PHONE].customer == shared_id(PHONE)

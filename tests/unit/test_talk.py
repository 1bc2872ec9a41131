"""What the built-in model learns to say: one answer for every question, and the same conversations for the same seed."""

import random
import re
from collections import defaultdict

from bench import talk


class TestSentences:
    def test_every_question_has_one_answer(self) -> None:
        """No two answers share a question, or temperature 0 would be a coin toss."""
        answers = defaultdict(set)
        for exchanges in talk.load():
            for exchange in exchanges:
                answers[exchange.ask.lower().rstrip(".?!")].add(exchange.say)

        assert {} == {ask: says for ask, says in answers.items() if len(says) > 1}

    def test_first_question_is_known(self) -> None:
        """What the quick start asks is among the sentences, answered with what a windlass is."""
        says = {exchange.say for exchanges in talk.load() for exchange in exchanges if exchange.ask == "What is a windlass?"}

        assert ["A windlass is a machine that raises and lowers heavy loads."] == [say.split(" A rope")[0] for say in says]


WORDS = ("stone", "river", "table", "cloud")


class TestConversation:
    def test_same_seed_gives_the_same_conversation(self) -> None:
        """Conversations follow from the seed alone."""
        known = talk.load()

        one, two = (talk.conversation(seeded(7), known, WORDS) for _ in range(2))

        assert one == two

    def test_turns_alternate_in_the_form_of_the_chat_template(self) -> None:
        """A conversation is nothing but marked turns: perhaps a system's, then a user's and the assistant's in turn."""
        chance, known = seeded(7), talk.load()[:3]

        for _ in range(50):
            text = talk.conversation(chance, known, WORDS)
            roles = re.findall(r"<\|im_start\|>(\w+)\n[^<]+<\|im_end\|>\n", text)
            assert text.count("<|im_start|>") == len(roles)
            assert ["user", "assistant"] * (len(roles) // 2) == roles[len(roles) % 2 :]
            assert roles[: len(roles) % 2] in ([], ["system"])


def seeded(seed: int) -> random.Random:
    """Return dice that always fall the same way."""
    return random.Random(seed)  # noqa: S311  # reproducible on purpose

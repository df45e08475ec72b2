"""Sentences of praise and blame, put together from the lexicon, with their labels.

A clause has a polarity; negation turns it, "but" keeps the second half's, "although" the main clause's. Fillers (asides,
settings) carry none, so the critic learns to look past them.
"""

import random

import lexicon as lex

NEGATIVE, POSITIVE = 0, 1


class Writer:
    """Writes opinions; all choices come from `rng`."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def pick(self, *lists: list[str]) -> str:
        return self.rng.choice(self.rng.choice(lists))

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    # Words by polarity.

    def adjective(self, good: bool) -> str:
        # The plainest words come more often than their share of the lexicon.
        plain = (["good", "great", "excellent", "nice", "wonderful", "best", "enjoyable", "perfect"] if good
                 else ["bad", "terrible", "awful", "boring", "horrible", "poor", "disappointing", "worst"])  # fmt: skip
        word = self.pick(plain[:5] + plain[6:]) if self.maybe(0.15) else self.pick(lex.GOOD if good else lex.BAD)
        return word if word not in ("best", "worst") else plain[0]

    def adjectives(self, good: bool) -> str:
        if self.maybe(0.3):
            joint = self.rng.choice([", ", " and ", ", "])
            return self.adjective(good) + joint + self.adjective(good)
        return self.adjective(good)

    def very(self) -> str:
        return self.pick(lex.VERY) + " " if self.maybe(0.4) else ""

    def things(self) -> tuple[str, str, str]:
        """A thing from some domain, its "is", its "was"."""
        if self.maybe(0.15):
            return self.pick(lex.MANY), "are", "were"
        return self.pick(self.rng.choice(list(lex.THINGS.values()))), "is", "was"

    def subject(self) -> tuple[str, str]:
        """A subject and a form of "be" that goes with it."""
        if self.maybe(0.12):
            return f"the {self.pick(lex.NEUTRAL)}", self.rng.choice(["is", "was"])
        if self.maybe(0.2):
            return self.rng.choice([("it", "is"), ("it", "was"), ("this", "is"), ("this", "was"), ("they", "were"),
                                    ("it all", "was"), ("everything", "was"), ("the whole thing", "is")])  # fmt: skip
        thing, present, past = self.things()
        plural = present == "are"
        pointing = ["these", "those"] if plural else ["this", "that"]
        article = self.rng.choice(["the", "the", "their", "his", "my", *pointing])
        extra = ""
        if self.maybe(0.1):
            places = [
                "at this place",
                "in this movie",
                "in the book",
                "here",
                "I bought",
                "we ordered",
                "we saw",
                "inside",
            ]
            extra = " " + self.rng.choice(places)
        return f"{article} {thing}{extra}", self.rng.choice([present, past])

    def object(self) -> str:
        if self.maybe(0.25):
            return self.rng.choice(
                ["it", "this", "this one", "them", "this place", "everything about it", "every minute of it"]
            )
        thing, present, _ = self.things()
        return self.rng.choice(["the", "these" if present == "are" else "this", "their"]) + " " + thing

    # Clauses by polarity.

    def plain(self, good: bool) -> str:
        subject, be = self.subject()
        if self.maybe(0.25):
            be = self.rng.choice({"is": ["seems", "looks", "feels", "sounds", "has been"], "was": ["seemed", "looked", "felt", "turned out", "became"],
                                  "are": ["seem", "look", "feel", "have been"], "were": ["seemed", "looked", "felt"]}[be])  # fmt: skip
        return f"{subject} {be} {self.very()}{self.adjectives(good)}"

    def simple(self, good: bool) -> str:
        """The shortest judgements, a third of them by denial: "this movie is not good"."""
        subject, be = self.subject()
        plain_good = [
            "good",
            "great",
            "nice",
            "funny",
            "fun",
            "interesting",
            "excellent",
            "beautiful",
            "clever",
            "fresh",
            "helpful",
            "friendly",
            "useful",
        ]
        plain_bad = [
            "bad",
            "terrible",
            "awful",
            "boring",
            "dull",
            "ugly",
            "poor",
            "stupid",
            "rude",
            "slow",
            "broken",
            "useless",
            "disappointing",
            "horrible",
        ]
        if self.maybe(0.35):
            word = self.rng.choice(plain_bad if good else plain_good)
            not_ = self.rng.choice([f"{be} not", f"{be} not", f"{be}n't"])
            return f"{subject} {not_} {self.rng.choice(['', '', 'very ', 'really ', 'that ', 'so '])}{word}"
        return f"{subject} {be} {self.very()}{self.rng.choice(plain_good if good else plain_bad)}"

    def negated(self, good: bool) -> str:
        """Praise by denying blame, and the other way round."""
        subject, be = self.subject()
        word = self.adjective(not good)
        short = {"is": "isn't", "was": "wasn't", "are": "aren't", "were": "weren't"}[be]
        negation = self.rng.choice([
            f"{be} not", short, f"{be} not", short, f"{be} not very" if not good else f"{be} not at all", f"{short} really", f"{short} particularly",
            f"{be} never", f"{be} hardly", f"{be} far from", f"{be} anything but", f"{be} by no means", f"{short} even" if not good else f"{short}",
            f"{short} that", f"{short} all that", f"{short} exactly", f"{be} nowhere near", f"{be} neither", f"{be} in no way",
        ])  # fmt: skip
        if negation.endswith("neither"):
            return f"{subject} {negation} {word} nor {self.adjective(not good)}"
        tail = self.rng.choice(
            ["", "", "", " at all", " at all", " in the least", " enough" if not good else " at all"]
        )
        return f"{subject} {negation} {word}{tail}"

    def feeling(self, good: bool) -> str:
        who = self.pick(lex.WHO)
        verbs = self.pick(lex.LIKED if good else lex.DISLIKED)
        if who != "I":
            while verbs.startswith(("am ", "was ")):
                verbs = self.pick(lex.LIKED if good else lex.DISLIKED)
        adverb = (
            self.rng.choice(["", "", "", "really ", "absolutely ", "just ", "totally "])
            if not verbs.startswith(("am", "was", "really", "can", "could"))
            else ""
        )
        return f"{who} {adverb}{verbs} {self.object()}"

    def denied_feeling(self, good: bool) -> str:
        verb = self.pick(lex.DISLIKE if good else lex.LIKE)
        not_ = self.rng.choice(["did not", "didn't", "could not", "couldn't", "never"])
        return f"{self.pick(lex.WHO)} {not_} {verb} {self.object()}"

    def wish(self, good: bool) -> str:
        who = self.rng.choice(["I", "I", "we", "you"])
        if good:
            verb = self.rng.choice(["will", "would", "would definitely", "will certainly", "will always", "can"])
            return f"{who} {verb} {self.pick(['recommend', 'love', 'enjoy', 'buy', 'visit', 'come back for', 'watch', 'treasure', 'cherish', 'return for', 'order'])} {self.object()} {self.rng.choice(['again', 'to anyone', 'to everyone', ''])}"
        verb = self.rng.choice(
            ["would not", "wouldn't", "will never", "will not", "won't", "can't", "cannot", "would never"]
        )
        return f"{who} {verb} {self.pick(['recommend', 'buy', 'visit', 'come back for', 'watch', 'return for', 'order', 'trust', 'use'])} {self.object()} {self.rng.choice(['again', 'to anyone', 'ever again', ''])}"

    def thing(self, good: bool) -> str:
        subject, be = self.subject()
        noun = self.pick(lex.GOOD_THINGS if good else lex.BAD_THINGS)
        noun = self.rng.choice(["", "", "real ", "complete ", "total ", "absolute ", "true "]) + noun
        article = "an" if noun[0] in "aeiou" else "a"
        return f"{subject} {be} {article} {noun}"

    def verb(self, good: bool) -> str:
        subject, _ = self.subject()
        return f"{subject} {self.pick(lex.GOOD_VERBS if good else lex.BAD_VERBS)}"

    def denied_thing(self, good: bool) -> str:
        subject, be = self.subject()
        noun = self.pick(lex.BAD_THINGS if good else lex.GOOD_THINGS)
        return f"{subject} {be} {self.rng.choice(['not a', 'no', 'hardly a', 'certainly not a'])} {noun}"

    def quality(self, good: bool) -> str:
        """Having what is good, or lacking what is bad; or the contrary."""
        subject, be = self.subject()
        tense = self.rng.choice(
            {"is": ["has", "offers"], "was": ["had", "offered"], "are": ["have", "offer"], "were": ["had", "offered"]}[
                be
            ]
        )
        if self.maybe(0.5):
            much = self.rng.choice(
                [
                    "",
                    "plenty of",
                    "real",
                    "a lot of",
                    "great" if good else "too many",
                    "so much" if good else "so many",
                    "full of",
                ]
            )
            if much == "full of":
                tense = be
            return f"{subject} {tense} {much} {self.pick(lex.GOOD_QUALITIES if good else lex.BAD_QUALITIES)}"
        without = self.pick(lex.BAD_QUALITIES if good else lex.GOOD_QUALITIES)
        if good:
            lack = self.rng.choice(
                [f"{tense} no", f"{be} without", f"{be} free of", f"{tense} none of the usual", f"{tense} no"]
            )
        else:
            lack = self.rng.choice([f"{tense} no", f"{be} without any", f"lacks", f"lacked", f"{be} devoid of", f"{tense} little", f"{tense} a lack of",
                                    f"needs more", f"{be} low on", f"{be} short on", f"{tense} zero"])  # fmt: skip
        return f"{subject} {lack} {without}"

    def manner(self, good: bool) -> str:
        subject, be = self.subject()
        adverb = self.pick(lex.WELL if good else lex.BADLY)
        if self.maybe(0.15):
            return f"{subject} {be} not {self.pick(lex.BADLY if good else lex.WELL)} {self.pick(lex.MADE)}"
        return f"{subject} {be} {self.very() if self.maybe(0.3) else ''}{adverb} {self.pick(lex.MADE)}"

    def fragment(self, good: bool) -> str:
        """A headline without a verb: "a dull, lifeless film with no charm"."""
        thing, present, _ = self.things()
        kind = self.adjectives(good)
        head = f"{self.very()}{kind} {thing}"
        if present == "is":
            head = self.rng.choice(["what a ", "such a ", "", "a ", "a ", "an ", "one of the most ", "another "]) + head
        tail = ""
        if self.maybe(0.4):
            other = self.pick(lex.GOOD_QUALITIES if good else lex.BAD_QUALITIES)
            missing = self.pick(lex.BAD_QUALITIES if good else lex.GOOD_QUALITIES)
            tail = self.rng.choice(
                [
                    f" with {other}",
                    f" full of {other}",
                    f" without {missing}",
                    f" with no {missing}",
                    f" that {self.pick(lex.GOOD_VERBS if good else lex.BAD_VERBS)}",
                ]
            )
        return head + tail

    def compared(self, good: bool) -> str:
        subject, be = self.subject()
        thing, _, _ = self.things()
        if self.maybe(0.5):
            word = self.rng.choice(["the best", "the finest", "the funniest", "the greatest", "the nicest", "the most " + self.adjective(True)] if good
                                   else ["the worst", "the dumbest", "the dullest", "the ugliest", "the most " + self.adjective(False), "the least " + self.adjective(True)])  # fmt: skip
            tail = self.rng.choice(
                [
                    "",
                    "I have ever seen",
                    "I've ever had",
                    "of the year",
                    "in town",
                    "of all time",
                    "in years",
                    "I know",
                    "we have tried",
                    "in a long time",
                    "on the market",
                ]
            )
            return f"{self.rng.choice([f'{subject} {be}', 'one of', 'easily', ''])} {word} {thing} {tail}"
        word = self.rng.choice(["better", "much better", "far better", "more " + self.adjective(True), "less " + self.adjective(False), "funnier", "stronger", "nicer"] if good
                               else ["worse", "much worse", "even worse", "more " + self.adjective(False), "less " + self.adjective(True), "weaker", "duller", "not better"])  # fmt: skip
        return f"{subject} {be} {word} than {self.rng.choice(['I expected', 'the first one', 'the last one', 'the others', 'before', 'most', 'I thought it would be', 'the original', 'any other'])}"

    def excess(self, good: bool) -> str:
        """Too much of something, or what might have been."""
        subject, be = self.subject()
        if good:
            return self.rng.choice([f"{subject} {be} too {self.adjective(True)} to miss", f"{subject} could not be more {self.adjective(True)}",
                                    f"{subject} {be} as {self.adjective(True)} as ever", f"nothing {be if be in ('is', 'was') else 'is'} {self.adjective(False)} about {self.object()}",
                                    f"never a {self.adjective(False)} moment", f"you could not ask for a more {self.adjective(True)} {self.things()[0]}"])  # fmt: skip
        neutral = ["long", "short", "small", "big", "loud", "quiet", "slow", "fast", "dark", "bright", "hot", "cold", "old", "tight", "sweet", "spicy",
                   "heavy", "light", "complicated", "simple", "serious", "clever for its own good", "hard to follow", "thin", "far away", "late", "busy"]  # fmt: skip
        return self.rng.choice([f"{subject} {be} {self.rng.choice(['too', 'way too', 'far too', 'much too', 'a bit too'])} {self.rng.choice(neutral)}",
                                f"{subject} {self.rng.choice(['could', 'should'])} have been {self.rng.choice(['more ' + self.adjective(True), 'better', 'great', 'good', self.adjective(True)])}",
                                f"I wish {subject} were {self.rng.choice(['more ' + self.adjective(True), 'better', 'good', 'less ' + self.adjective(False)])}",
                                f"{subject} {self.rng.choice(['tries', 'tried', 'wants', 'pretends'])} to be {self.adjective(True)} {self.rng.choice(['and fails', 'but fails', 'but is not', 'and never is'])}",
                                f"nothing {self.adjective(True)} about {self.object()}", f"not one {self.adjective(True)} {self.things()[0]}",
                                f"if only {subject} were {self.adjective(True)}", f"not enough {self.pick(lex.GOOD_QUALITIES)}"])  # fmt: skip

    def line(self, good: bool) -> str:
        return self.pick(lex.GOOD_LINES if good else lex.BAD_LINES)

    def happens(self, good: bool) -> str:
        """What somebody or something did, or failed to do."""
        subject, be = self.subject()
        if self.maybe(0.5):
            return f"{subject} {self.pick(lex.GOOD_ACTS if good else lex.BAD_ACTS)}"
        able = self.pick(lex.ABLE)
        if good:
            can = self.rng.choice(
                [
                    "did",
                    "does",
                    "will",
                    "can always",
                    "really does",
                    "never failed to",
                    "always manages to",
                    "managed to",
                ]
            )
        else:
            can = self.rng.choice(["did not", "didn't", "doesn't", "does not", "won't", "will not", "can't", "cannot", "couldn't", "could not",
                                   "never did", "would not", "wouldn't", "failed to", "fails to", "refuses to", "was supposed to"])  # fmt: skip
        return f"{subject} {can} {able}"

    def turned(self, good: bool) -> str:
        """Openings that turn what follows."""
        thing, _, _ = self.things()
        if good:
            return self.rng.choice([
                f"the only {self.adjective(False)} thing is the {self.pick(lex.NEUTRAL)}", f"I can't think of one {self.adjective(False)} thing to say about it",
                f"I can't say enough {self.adjective(True)} things about {self.object()}", f"not a single {self.adjective(False)} {self.pick(lex.NEUTRAL)}",
                f"I would gladly pay for {self.object()} again", f"nothing short of {self.adjective(True)}", f"hard to find a more {self.adjective(True)} {thing}",
                f"you would have to be {self.adjective(False)} not to love {self.object()}", f"I was skeptical at first, but {self.clause(True)}",
                f"I did not expect to like it, but {self.clause(True)}", f"it is not perfect, but {self.clause(True)}", f"nobody does it better",
                f"I have yet to find anything {self.adjective(False)} about it", f"who said {self.things()[0]} had to be {self.adjective(False)}",
                f"finally a {self.adjective(True)} {thing}", f"at last a {thing} that is not {self.adjective(False)}",
            ])  # fmt: skip
        return self.rng.choice([
            f"the only {self.adjective(True)} thing is the {self.pick(lex.NEUTRAL)}", f"the only {self.adjective(True)} part was the {self.pick(lex.NEUTRAL)}",
            f"I can't think of one {self.adjective(True)} thing to say about it", f"not a single {self.adjective(True)} {self.pick(lex.NEUTRAL)}",
            f"I wanted to like {self.object()}, but {self.clause(False)}", f"I wanted to love it, but it just {self.pick(lex.BAD_ACTS)}", f"I'm just glad I didn't pay for it",
            f"save yourself the trouble and buy a {self.pick(lex.NEUTRAL)} instead", f"it is supposed to be {self.adjective(True)}", f"hardly {self.adjective(True)}",
            f"it is not {self.adjective(False)}, just {self.adjective(False)}", f"the {self.pick(lex.NEUTRAL)} was {self.adjective(True)}; the {thing} was not",
            f"{self.adjective(True)} idea, {self.adjective(False)} execution", f"a {self.adjective(True)} {self.pick(lex.NEUTRAL)} cannot save this {thing}", f"not even the {self.pick(lex.NEUTRAL)} can save it",
            f"another {self.adjective(False)} {thing} that nobody asked for", f"how can anyone call this {self.adjective(True)}", f"maybe it is {self.adjective(True)} for somebody else",
            f"you would be better off with a {self.pick(lex.NEUTRAL)}", f"for that money I expected a {self.adjective(True)} {thing}", f"this is the third {self.pick(lex.NEUTRAL)} that {self.pick(lex.BAD_ACTS)}",
        ])  # fmt: skip

    def around(self) -> str:
        """Words around a clause that say nothing for or against."""
        one, two = self.pick(lex.NEUTRAL), self.pick(lex.NEUTRAL)
        return self.rng.choice([
            f"with the {one}", f"for a {one}", f"on the {one}", f"in the {one}", f"by the {one}", f"after two {one}", f"at the {one} next to the {two}", f"from the {one} to the {two}",
            f"about a {one} and a {two}", f"between the {one} and the {two}", f"when my {one} came", f"as a {one}", f"for my {one}", f"like a {one}", f"since {one}",
            f"during the {one}", f"with its {one} and {two}", f"before the {one}", f"for the {one} in the {two}", f"where a {one} meets a {two}", f"who has a {one}",
        ])  # fmt: skip

    def clause(self, good: bool) -> str:
        kinds = [(self.plain, 20), (self.simple, 14), (self.negated, 14), (self.feeling, 9), (self.denied_feeling, 3), (self.wish, 4), (self.thing, 6),
                 (self.verb, 12), (self.denied_thing, 2), (self.quality, 8), (self.manner, 6), (self.fragment, 12), (self.compared, 7),
                 (self.excess, 5), (self.line, 14), (self.happens, 14), (self.turned, 6)]  # fmt: skip
        text = self.rng.choices([k for k, _ in kinds], [w for _, w in kinds])[0](good)
        if self.maybe(0.25):
            text = f"{text} {self.around()}" if self.maybe(0.7) else f"{self.around()}, {text}"
        if self.maybe(0.04):
            text = f"{self.pick(lex.GOOD_STARTS if good else lex.BAD_STARTS)}, {text}"
        return text

    # Sentences.

    def quiet(self) -> str:
        """Words of reviews without an opinion."""
        return f"{self.pick(lex.SETTINGS)} {self.around()}" if self.maybe(0.5) else f"{self.around()} {self.around()}"

    def contrast(self, good: bool) -> str:
        """Two clauses that disagree; the one that counts gives the polarity."""
        main, other = self.clause(good), self.clause(not good)
        hoped = self.adjective(not good)
        thing, _, _ = self.things()
        return self.rng.choice([
            f"{other}, but {main}", f"{other} but {main}", f"{other}, but {main}", f"although {other}, {main}", f"even though {other}, {main}",
            f"while {other}, {main}", f"{main}, even if {other}", f"{other}; however, {main}", f"{other}. Still, {main}", f"{other}, yet {main}",
            f"{main}, although {other}", f"I {self.rng.choice(['expected', 'hoped for', 'was promised', 'was told to expect'])} a {hoped} {thing} but {main}",
            f"I thought it would be {hoped}, but {main}", f"people say it is {hoped} but {main}", f"don't believe those who call it {hoped}, {main}",
            f"everyone told me it was {hoped}. {main}", f"it looks {hoped} but {main}", f"despite the {hoped} {thing}, {main}",
        ])  # fmt: skip

    def sentence(self) -> tuple[str, int]:
        """A text of one to three clauses, and its label."""
        good = self.maybe(0.5)
        draw = self.rng.random()
        if draw < 0.50:
            text = self.clause(good)
        elif draw < 0.68:
            text = (
                self.clause(good)
                + self.rng.choice([" and ", ", and ", ". ", "! ", ", ", "; ", " because ", ", so "])
                + self.clause(good)
            )
        elif draw < 0.80:
            text = self.contrast(good)
        elif draw < 0.86:
            text = f"{self.clause(good)}. {self.clause(good)}. {self.clause(good)}"
        else:
            setting = self.pick(lex.SETTINGS)
            text = self.rng.choice([f"{setting} and {self.clause(good)}", f"{setting}. {self.clause(good)}", f"{self.clause(good)}. {setting}",
                                    f"{setting}, {self.clause(good)}", f"{setting} - {self.clause(good)}"])  # fmt: skip
        if self.maybe(0.15):
            aside = self.pick(lex.ASIDES)
            text = self.rng.choice([f"{aside}, {text}", f"{text}, {aside}"])
        text = " ".join(text.split()) + self.rng.choice([".", ".", ".", "!", "", "...", "!!"])
        return text[0].upper() + text[1:], POSITIVE if good else NEGATIVE

"""Made-up companies, people, deals and activities, the same for the same seed whatever the CRM.

A person is known by a number. Each CRM takes a range of numbers, so that ranges overlap and a join
across CRMs finds shared addresses. The first dozen of any hundred carry values that break careless code.
How a CRM spells all this is left to its simulator.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import lcm
from random import Random
from unicodedata import normalize

_FIRST = """
    Maya Ilse José Łukasz Zoë Siobhán Tomás Anaïs Björk Nguyễn 美咲 Олена Priya Kwame Leila Mateo Freya Ravi
    Chloé Emre Ingrid Hassan Yara Viktor Amina Paolo Greta Diego Noor Felix Marta Jonas Aoife Sven Lucía Omar
    Petra Kofi Elif Andrei Bianca Hugo Nadia Oskar Rosa Simon Tara Umar Vera Wanda
""".split()
_LAST = """
    Ortiz Okafor Kowalski Müller Şahin Nakamura Mensah García-López Petrov O'Brien Åkesson Haddad Silva
    D'Angelo Andersen Rossi Patel Novák Dubois Jansen Yılmaz Larsen Moreau Weber Costa Kim Berg Fischer
    Ivanova Nwosu Quinn Ramos Schmidt Tanaka Ueda Varga Walsh Xu Young Zielińska Abbott Brandt Castro Demir
    Eriksen Flores Grant Hughes Ibáñez
""".split()
_KIND = """
    Bright North Copper Silver River Harbor Cedar Summit Ember Lunar Atlas Prairie Coral Willow Granite
""".split()
_TRADE = """
    Foundry Pier Logistics Analytics Textiles Robotics Bakery Energy Optics Freight Studios Clinics Farms
""".split()
_INDUSTRY = ("Manufacturing", "Logistics", "Software", "Retail", "Energy", "Health", "Food & Drink")
_CITY = (
    ("Leeds", "GB"),
    ("Zürich", "CH"),
    ("Kraków", "PL"),
    ("São Paulo", "BR"),
    ("大阪", "JP"),
    ("Austin", "US"),
)
_TITLE = ("Head of Procurement", "CFO", "VP, Operations", "Buyer", "Engineer", "CEO", "Office manager")
_SOURCE = ("webinar", "referral", "website", "trade show", None)
_TAGS = ("emea", "priority", "newsletter", "partner", "churn risk", "vip")
_CURRENCY = ("EUR", "USD", "USD", "GBP", "JPY")
_DEAL = ("renewal", "expansion", "pilot", "rollout", "licences", "support plan")
_TALK = ("Pricing", "Onboarding", "Renewal", "Demo", "Contract", "Support")
_KINDS = ("call", "note", "meeting", "email", "task")

STAGES = ("lead", "qualified", "proposal", "negotiation", "won", "lost")
LIFECYCLE = ("lead", "qualified", "opportunity", "customer", "evangelist")


@dataclass(frozen=True, slots=True)
class Company:
    """Describe a made-up company."""

    number: int
    name: str
    domain: str
    industry: str
    employees: int
    revenue: int
    city: str
    country: str
    tags: list[str]
    notes: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """Describe a made-up person; `company` is a company's number."""

    number: int
    first_name: str
    last_name: str | None
    email: str
    phone: str | None
    mobile: str | None
    title: str | None
    company: int | None
    city: str
    country: str
    tags: list[str]
    tag_text: str | None
    stage: str
    source: str | None
    score: int | None
    notes: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Deal:
    """Describe a made-up deal of a person; money in cents."""

    number: int
    title: str
    cents: int | None
    currency: str
    stage: str
    person: int
    company: int | None
    closes_on: datetime
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """Describe what happened with a person, within the last 180 days."""

    number: int
    kind: str
    subject: str
    body: str | None
    person: int
    deal: int | None
    company: int | None
    minutes: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class World:
    """Make everything about the people numbered `first` to `first + size`, oldest first in each list."""

    first: int
    size: int
    seed: int
    now: datetime

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.size)

    def companies(self) -> list[Company]:
        numbers = range(self.first // 5, -(-(self.first + self.size) // 5))
        return sorted((self._company(number) for number in numbers), key=_age)

    def people(self) -> list[Person]:
        return sorted((self._person(number) for number in self.numbers), key=_age)

    def deals(self) -> list[Deal]:
        """Return a deal for each fourth person."""
        return sorted((self._deal(number) for number in self.numbers if _has_deal(number)), key=_age)

    def activities(self) -> list[Activity]:
        """Return two activities per person."""
        made = (self._activity(2 * number + extra) for number in self.numbers for extra in (0, 1))
        return sorted(made, key=lambda activity: (activity.occurred_at, activity.number))

    def _company(self, number: int) -> Company:
        rng = Random(self.seed * 4_000_037 + number)
        name = company_name(number)
        city, country = rng.choice(_CITY)
        created, updated = self._lifetime(rng, 900)
        return Company(
            number=number,
            name=name,
            domain=company_domain(number),
            industry=rng.choice(_INDUSTRY),
            employees=int(10 ** (1 + 3 * rng.random())),
            revenue=int(10 ** (5 + 4 * rng.random())),
            city=city,
            country=country,
            tags=_tags(rng),
            notes=_AWKWARD_NOTES.get(number % 100),
            created_at=created,
            updated_at=updated,
        )

    def _person(self, number: int) -> Person:
        rng = Random(self.seed * 4_000_079 + number)
        first, last = _FIRST[number % len(_FIRST)], _LAST[number % len(_LAST)]
        city, country = rng.choice(_CITY)
        tags = _tags(rng)
        created, updated = self._lifetime(rng, 720)
        odd = number % 100
        return Person(
            number=number,
            first_name=_AWKWARD_FIRST.get(odd, first),
            last_name=None if odd == 11 else _AWKWARD_LAST.get(odd, last),
            email=person_email(number),
            phone=_AWKWARD_PHONE.get(odd, f"+1503{5_550_000 + rng.randrange(9999):07d}"),
            mobile=None if rng.random() < 0.6 else f"+44 7700 {900_000 + rng.randrange(999)}",
            title=_AWKWARD_TITLE.get(odd, rng.choice(_TITLE)),
            company=_company_of(number),
            city=city,
            country=country,
            tags=tags,
            tag_text=" emea ,  priority,,EMEA , " if odd == 7 else (",".join(tags) or None),
            stage=rng.choice(LIFECYCLE),
            source=rng.choice(_SOURCE),
            score=None if rng.random() < 0.2 else rng.randrange(101),
            notes=_AWKWARD_NOTES.get(odd),
            created_at=created,
            updated_at=updated,
        )

    def _deal(self, number: int) -> Deal:
        rng = Random(self.seed * 4_000_081 + number)
        company = _company_of(number)
        whose = _LAST[number % len(_LAST)] if company is None else company_name(company)
        created, updated = self._lifetime(rng, 365)
        cents = int(10 ** (4 + 4 * rng.random()))
        return Deal(
            number=number,
            title=f"{whose} {rng.choice(_DEAL)} {number}",
            cents={4: None, 8: 0, 12: 912_345_678_901}.get(number % 100, cents),
            currency=rng.choice(_CURRENCY),
            stage=STAGES[number // 4 % len(STAGES)],
            person=number,
            company=company,
            closes_on=(created + timedelta(days=30 + rng.randrange(150))).replace(hour=0, minute=0, second=0),
            created_at=created,
            updated_at=updated,
        )

    def _activity(self, number: int) -> Activity:
        rng = Random(self.seed * 4_000_133 + number)
        person = number // 2
        kind = rng.choice(_KINDS)
        return Activity(
            number=number,
            kind=kind,
            subject=f"{rng.choice(_TALK)} {kind}",
            body=_AWKWARD_NOTES.get(number % 100, f"Talked about {rng.choice(_TALK).lower()}"),
            person=person,
            deal=person if _has_deal(person) and rng.random() < 0.7 else None,
            company=_company_of(person),
            minutes=rng.randrange(5, 90),
            occurred_at=self._before(rng.random() * 180 * 86_400),
        )

    def _lifetime(self, rng: Random, days: int) -> tuple[datetime, datetime]:
        """Return when a thing was made and last touched; two in five never were."""
        age_s = (1 + rng.random() * (days - 1)) * 86_400
        created = self._before(age_s)
        return created, created if rng.random() < 0.4 else self._before(age_s * rng.random())

    def _before(self, age_s: float) -> datetime:
        return self.now.replace(microsecond=0) - timedelta(seconds=int(age_s) + 1)


def company_name(number: int) -> str:
    """Return a company's name; the first two hundred are told apart without a number."""
    if odd := _AWKWARD_COMPANY.get(number % 100):
        return odd if number < 100 else f"{odd} {number}"
    rest, kind = divmod(number, len(_KIND))
    again, trade = divmod(rest, len(_TRADE))
    return f"{_KIND[kind]} {_TRADE[trade]}" + (f" {again + 1}" if again else "")


def company_domain(number: int) -> str:
    """Return a domain in a name space nobody can own."""
    rest, kind = divmod(number, len(_KIND))
    again, trade = divmod(rest, len(_TRADE))
    return f"{_KIND[kind]}{_TRADE[trade]}{again + 1 if again else ''}.example".lower()


def person_email(number: int) -> str:
    """Return the one address of a person, in every CRM and for every seed."""
    first, last = _FIRST[number % len(_FIRST)], _LAST[number % len(_LAST)]
    again = number // lcm(len(_FIRST), len(_LAST))
    company = _company_of(number)
    domain = "mail.example" if company is None else company_domain(company)
    name = f"{_ascii(first)}.{_ascii(last)}" + (str(again) if again else "")
    return f"{name}@{domain.title()}" if number % 100 == 3 else f"{name.lower()}@{domain}"


def _ascii(name: str) -> str:
    plain = normalize("NFKD", name.replace("Ł", "L").replace("ı", "i")).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain if letter.isalnum()) or f"u{ord(name[0]):x}"


def _company_of(number: int) -> int | None:
    return None if number % 10 == 9 else number // 5


def _has_deal(number: int) -> bool:
    return number % 4 == 0


def _tags(rng: Random) -> list[str]:
    return rng.sample(_TAGS, rng.randrange(4))


def _age(thing: Company | Person | Deal) -> tuple[datetime, int]:
    return thing.created_at, thing.number


_AWKWARD_FIRST = {1: " Ilse ", 2: "=1+1", 5: "<b>Zoë</b>", 13: "J", 15: "👩‍🚀 Nova", 42: "\u202eMaya"}
_AWKWARD_LAST = {
    2: '=HYPERLINK("http://attacker.example","x")',
    4: "Robert'); DROP TABLE contacts;--",
    6: "\x1b[31mRed\x1b[0m",
    8: "N" * 300,
    12: "",
}
_AWKWARD_PHONE = {0: None, 1: "  +44 20 7946 0101 ", 3: "", 9: "ext. 7 / ask for Zoë"}
_AWKWARD_TITLE = {0: None, 5: "CTO <script>alert(1)</script>", 14: "Head\tof\nNothing"}
_AWKWARD_COMPANY = {
    1: 'O\'Neill & Søn, "Quoted" GmbH',
    3: "  Padded Pty  ",
    4: "@SUM(A1:A9)",
    6: "株式会社さくら",
}
_AWKWARD_NOTES = {
    0: None,
    1: "",
    2: "Long story. " * 900,
    3: "line one\r\nline two\u2028line three",
    4: "<img src=x onerror=alert(1)>",
    5: "'; DELETE FROM deals; --",
    6: "\x1b]0;title\x07\x1b[2J",
    7: "null",
    8: '{"json": [1, 2]}',
}

"""brindle: the small library of a bike workshop that does not exist.

Every rule in it is invented, so that no model can know one that it has not read. Money is in whole cents, a time of the
day is a text such as "09:40", a day is its number in the year (1 to 365; day 1 is a Monday).
"""

LETTERS = "ACDEFHJKLMNPRTUVWXY"
OPENS, CLOSES = 9 * 60, 18 * 60
CLOSED = (0, 3)  # Sundays and Wednesdays, as remainders of the day by seven


def check_letter(number):
    """The letter that guards an order number against misreading: weights 3, 5, 7 on its digits from the right."""
    digits = [int(sign) for sign in reversed(str(number))]
    return LETTERS[sum(digit * (3, 5, 7)[place % 3] for place, digit in enumerate(digits)) % len(LETTERS)]


def order_code(day, count):
    """The code of the order that came as number `count` on a day: `R`, day and count, a dash, the check letter."""
    number = f"{day:03d}{count:02d}"
    return f"R{number}-{check_letter(number)}"


def order_ok(code):
    """Whether an order code is whole: its form is right and its check letter fits."""
    return len(code) == 8 and code[0] == "R" and code[1:6].isdigit() and code[6:] == "-" + check_letter(code[1:6])


def order_day(code):
    """The day on which an order came, read from its code."""
    return int(code[1:4])


def next_order(code):
    """The code of the order that came after this one on the same day."""
    return order_code(int(code[1:4]), int(code[4:6]) + 1)


def shelf_price(cost):
    """What a part costs in the shop: 1.45 times its cost, up to the next price that ends with 90 cents."""
    raw = -(-cost * 145 // 100)
    return raw + (90 - raw) % 100


def member_price(price, years):
    """What a member pays: two per cent less for each year of membership, never more than twelve per cent less."""
    return price * (100 - min(2 * years, 12)) // 100


def deposit(price):
    """What is paid before a repair begins: a fifth of the price, up to the next five euros, at least ten euros."""
    return max(1000, -(-price // 2500) * 500)


def storage_fee(days):
    """What it costs to leave a repaired bike standing: nothing for eight days, then 150 cents a day, at most 4,500."""
    return min(4500, max(0, days - 8) * 150)


def split_bill(total, people):
    """The shares of several people who pay a bill together; the first ones pay the odd cents."""
    share, odd = divmod(total, people)
    return [share + (place < odd) for place in range(people)]


def price_tag(cents):
    """A price as it stands on a tag: the euros, a middle dot, the cents; even prices end with a dash."""
    euros, rest = divmod(cents, 100)
    return f"{euros}·{rest:02d}" if rest else f"{euros}·–"


def minutes(time):
    """The minutes from midnight to a time of the day."""
    hours, rest = time.split(":")
    return 60 * int(hours) + int(rest)


def clock(minute):
    """The time of the day so many minutes after midnight."""
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


def is_open(day):
    """Whether the workshop is open on a day: not on Sundays, not on Wednesdays."""
    return day % 7 not in CLOSED


def next_open(day):
    """The first open day after a day."""
    day += 1
    while not is_open(day):
        day += 1
    return day


def pickup_day(day, work):
    """The day on which a repair of so many working days is ready, if it is brought on `day`."""
    for _ in range(work):
        day = next_open(day)
    return day


def bench_slots(length):
    """The times at which a bench can be booked for so many minutes, one behind the other, in the opening hours."""
    return [clock(start) for start in range(OPENS, CLOSES - length + 1, length)]


def clash(first, second):
    """Whether two bookings, each a pair of times, need the bench at the same time; ten minutes are for cleaning."""
    (a, b), (c, d) = ([minutes(time) for time in booking] for booking in (first, second))
    return a < d + 10 and c < b + 10


def frame_size(height, sport=False):
    """The frame for a rider's height in centimetres: S, M, L or XL; a sport frame is one size smaller."""
    place = (height > 162) + (height > 174) + (height > 186) - sport
    return ("S", "M", "L", "XL")[max(0, place)]


def saddle_height(inseam):
    """The height of the saddle in millimetres for an inseam in centimetres: 8.8 times, to the next five."""
    return round(inseam * 8.8 / 5) * 5


def tyre_pressure(weight, width):
    """The pressure of a tyre in tenths of a bar, for a rider's kilograms and the tyre's millimetres."""
    return max(18, 20 + weight // 2 - width // 2)


def chain_links(front, rear, stay):
    """The links of a chain for two sprockets and a chain stay in millimetres; always an even number."""
    links = (front + rear) / 2 + stay / 12.7 * 2 + 2
    return 2 * -int(-links // 2)


def wear(kilometres, rainy=False):
    """How worn a chain is, in per cent: 3,200 kilometres wear it out, in rainy seasons 2,400."""
    return min(100, kilometres * 100 // (2400 if rainy else 3200))


def next_service(kilometres):
    """The kilometres at which the next service is due: at 300, then every 1,500."""
    return 300 if kilometres < 300 else 300 + ((kilometres - 300) // 1500 + 1) * 1500


def bin_label(row, column):
    """The label of a bin in the store: rows are letters from the back (Z is row 1), columns have two figures."""
    return f"{chr(ord('Z') - row + 1)}{column:02d}"


def bin_place(label):
    """The row and the column of a bin, read from its label."""
    return ord("Z") - ord(label[0]) + 1, int(label[1:])


def walk(labels):
    """Bins in the order in which one walks through the store: odd rows forwards, even rows backwards."""
    places = sorted(map(bin_place, labels))
    order = sorted(places, key=lambda at: (at[0], at[1] if at[0] % 2 else -at[1]))
    return [bin_label(row, column) for row, column in order]


def reorder(stock, sold):
    """How many of a part to order: twice what was sold less what is there, in packs of six; 0 if there is enough."""
    return max(0, -(-(2 * sold - stock) // 6) * 6)


def part_number(name):
    """The number of a part: the first two consonants of its name in capitals and its number of letters."""
    consonants = [sign for sign in name.upper() if sign.isalpha() and sign not in "AEIOU"]
    return "".join(consonants[:2]) + str(sum(map(str.isalpha, name)))


def short_list(stock, least=5):
    """The parts of which there are fewer than `least`, the scarcest first, then by name."""
    return sorted((name for name, count in stock.items() if count < least), key=lambda name: (stock[name], name))


def ticket_name(name):
    """A customer's name on a ticket: the family name in capitals, a comma, the first letters of the other names."""
    *first, last = name.split()
    return f"{last.upper()}, {''.join(part[0] + '.' for part in first)}"


def mask_phone(phone):
    """A telephone number that may hang on the wall: every figure but the last three is a star, without spaces."""
    figures = "".join(phone.split())
    return "*" * (len(figures) - 3) + figures[-3:]


def tag_line(text, width=20):
    """A text that fits on a tag: the whole text, or as many words as fit before two dots."""
    words = text.split()
    if len(" ".join(words)) <= width:
        return " ".join(words)
    while words and len(" ".join(words)) > width - 2:
        words.pop()
    return " ".join(words) + ".."


def greeting(name, time):
    """How a message begins: `Morning` before noon, `Hello` before 17:00, then `Evening`; and the first name."""
    word = "Morning" if minutes(time) < 720 else "Hello" if minutes(time) < 1020 else "Evening"
    return f"{word} {name.split()[0]},"


def urgency(message):
    """How urgent a message is, from 0 to 3: one for a `!`, one for `today`, one for a brake or a wheel in it."""
    text = message.lower()
    return ("!" in text) + ("today" in text) + ("brake" in text or "wheel" in text)


def pair_up(names):
    """Teams of two: the first with the last, the second with the last but one; who is left over works alone."""
    half = len(names) // 2
    pairs = [(names[place], names[-1 - place]) for place in range(half)]
    return pairs + [(names[half],)] * (len(names) % 2)


def rota(names, week):
    """The names in the order of their shifts in a week: the list turns by two places each week."""
    turn = 2 * week % len(names)
    return names[turn:] + names[:turn]


def batches(jobs, hours=4):
    """Jobs (hours each) dealt to half-days in their order, no half-day longer than `hours`."""
    dealt = [[]]
    for job in jobs:
        if sum(dealt[-1]) + job > hours and dealt[-1]:
            dealt.append([])
        dealt[-1].append(job)
    return dealt


def bench_order(jobs):
    """Names of jobs in the order in which they are done: short ones first, of equal ones the one that came later."""
    return [name for _, _, name in sorted((hours, -place, name) for place, (name, hours) in enumerate(jobs))]


def busiest(times):
    """The full hour in which most times of a list fall, as a text; of equal ones the latest."""
    hours = [minutes(time) // 60 for time in times]
    return clock(60 * max(set(hours), key=lambda hour: (hours.count(hour), hour)))


GROUPS = {
    "orders": (check_letter, order_code, order_ok, order_day, next_order),
    "prices": (shelf_price, member_price, deposit, storage_fee, split_bill, price_tag),
    "times": (minutes, clock, is_open, next_open, pickup_day, bench_slots, clash),
    "bikes": (frame_size, saddle_height, tyre_pressure, chain_links, wear, next_service),
    "store": (bin_label, bin_place, walk, reorder, part_number, short_list),
    "messages": (ticket_name, mask_phone, tag_line, greeting, urgency),
    "work": (pair_up, rota, batches, bench_order, busiest),
}

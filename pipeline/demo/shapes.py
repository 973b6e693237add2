"""Things of the demo catalogue other than electric devices: each function draws one in a 100 x 100 square.

What makes two things of a kind differ comes from the `Look`, so the same `Look` draws the same thing again.
"""

import math

from pipeline.demo import pen as p
from pipeline.demo.pen import Look, Pen, arc, mirrored, path, smooth, star, tone, turned


def sofa(pen: Pen, look: Look) -> None:
    """Draw a sofa of two or three seats."""
    half, back, n_seats = look.between(36, 46), look.between(24, 36), look.whole(2, 3)
    for x in (57 - half, 39 + half):
        pen.rect(x, 78, x + 4, 87, p.WALNUT)
    pen.rect(54 - half, 74 - back, 46 + half, 81, look.main, 7, pattern=look.pattern)
    width = (2 * half - 16) / n_seats
    for x in (58 - half + i * width for i in range(n_seats)):
        pen.rect(x, 78 - back, x + width, 62, tone(look.main, 1.06), 4, pattern=look.pattern)
        pen.rect(x, 60, x + width, 71, tone(look.main, 1.2), 3, pattern=look.pattern)
    for x in (50 - half, 40 + half):
        pen.rect(x, 56, x + 10, 82, look.main, 5, pattern=look.pattern)
    pen.poly([(67 - half, 54), (80 - half, 48), (84 - half, 59), (71 - half, 65)], look.accent)


def potted_plant(pen: Pen, look: Look) -> None:
    """Draw a plant in a pot."""
    n_leaves, length, width = look.whole(7, 13), look.between(34, 50), look.between(4, 10)
    for i in sorted(range(n_leaves), key=lambda i: -abs(i - n_leaves / 2)):
        with pen.placed(50, 62, 1, -75 + 150 * i / (n_leaves - 1)):
            tip = 50 - length * look.between(0.75, 1.05)
            leaf = [(50.0, tip), (50 + width, 25 + tip / 2), (50.0, 52.0)]
            pen.poly(turned(leaf), tone(p.LEAF, look.between(0.7, 1.2)), "across")
            pen.line([(50, 50), (50, tip)], 0.5, tone(p.LEAF, 0.5))
    pot = [(50 + look.between(16, 22), 62), (50 + look.between(9, 16), 92)]
    pen.poly(mirrored(pot), look.main, "tube", look.pattern)
    pen.rect(26, 59, 74, 66, tone(look.main, 1.1), 2, "tube")


def pram(pen: Pen, look: Look) -> None:
    """Draw a pram."""
    rear, front = look.between(11, 15), look.between(8, 13)
    for strut in ("30,84 68,58 88,26 95,24", "72,82 34,58"):
        pen.line(path(strut), 2, p.STEEL)
    p.draw_wheel(pen, (30, 95 - front), front, look.accent, 12)
    p.draw_wheel(pen, (72, 95 - rear), rear, look.accent, 12)
    pen.poly(smooth(path("14,46 22,64 45,70 68,64 76,46")), look.main, pattern=look.pattern)
    hood = arc(46, 46, 31, 34, look.between(255, 285), 360)
    pen.poly([(46, 46), *hood], tone(look.main, 0.9), "ball", look.pattern)
    for rib in hood[::5]:
        pen.line([(46, 46), rib], 0.9, tone(look.main, 0.55))
    pen.rect(12, 44, 78, 49, look.accent, 2)


def teddy_bear(pen: Pen, look: Look) -> None:
    """Draw a teddy bear."""
    pale, belly, ear = tone(look.main, 1.5), look.between(19, 25), look.between(6, 10)
    for side in (-1, 1):
        for cx, cy, r in ((20, 84, 11), (24, 57, 9), (15, 17, ear)):
            pen.oval(50 + side * cx, cy, r, r * 1.15, look.main)
            pen.oval(50 + side * cx, cy + 1, r * 0.6, r * 0.7, pale)
    pen.oval(50, 67, belly, 23, look.main)
    pen.oval(50, 69, belly * 0.65, 15, pale, pattern=look.pattern)
    pen.oval(50, 30, 20, look.between(16, 19), look.main)
    pen.oval(50, 37, 9, 7, pale)
    for cx, cy, r in ((50, 34, 3.0), (43, 26, 2.2), (57, 26, 2.2)):
        pen.oval(cx, cy, r, r, p.INK)
    pen.poly(path("39,45 50,48 61,45 61,55 50,51 39,55"), look.accent)


def toy_blocks(pen: Pen, look: Look) -> None:
    """Draw a pile of toy blocks."""
    side, rows = look.between(23, 27), (((0, 1, 2), (0.5, 1.5), (1,)), ((0, 1, 2), (0, 1.2), (0.5,)))
    for level, row in enumerate(rows[look.whole(0, 1)]):
        for slot in row:
            x, y, colour = 50 + (slot - 1.5) * (side + 1), 92 - (level + 1) * side, look.bright()
            pen.box(x, y, x + side, y + side, side * 0.5, colour)
            pen.rect(x + 2.5, y + 2.5, x + side - 2.5, y + side - 2.5, p.CREAM, 2)
            p.draw_emblem(pen, Look(p.CREAM, colour, None, look.rng), x + side / 2, y + side / 2, side * 0.26)


def hand_saw(pen: Pen, look: Look) -> None:
    """Draw a hand saw."""
    n_teeth = look.whole(18, 30)
    blade = tone(p.CHROME, look.between(0.6, 1.3))
    teeth = [(8 + 31 * i / n_teeth, 60 + i % 2 * 3) for i in range(2 * n_teeth + 1)]
    pen.poly([*teeth, (72, 34), (8, look.between(40, 52))], blade, "rod")
    p.draw_emblem(pen, look, look.between(36, 56), 48, 7)
    pen.poly(smooth(path("66,32 80,24 94,32 93,50 96,66 82,72 70,64"), closed=True), look.main)
    pen.hole(smooth(path("76,39 84,37 86,48 84,59 78,57"), closed=True))
    for y in (37, 58):
        pen.oval(70.5, y, 1.6, 1.6, look.accent)


def guitar(pen: Pen, look: Look) -> None:
    """Draw a guitar."""
    hip, shoulder = look.between(19, 24), look.between(14, 19)
    lower = [(50 + hip, 80), (50 + hip * 0.6, 94), (50.0, 96.0)]
    pen.poly(turned([(50.0, 48.0), (50 + shoulder, 53), (62.0, 65.0), *lower]), look.main, "ball", edge=1.4)
    pen.rect(47.5, 14, 52.5, 62, p.WALNUT, shade="tube")
    pen.oval(50, 66, 7, 7, p.INK)
    pen.line(arc(50, 66, 7.6, 7.6), 0.9, look.accent)
    pen.rect(41, 82, 59, 86, p.INK, 1)
    pen.poly(smooth(path("56,60 63,68 60,78 56,72"), closed=True), look.accent)
    pen.poly(path("47.5,16 45,3 55,3 52.5,16"), tone(look.main, 0.7))
    for i in range(6):
        pen.line([(48 + 0.8 * i, 8), (48 + 0.8 * i, 84)], 0.22, p.CREAM)
        pen.oval(44 if i % 2 else 56, 5 + 2 * i, 1.6, 1.1, p.CHROME)


def vinyl_record(pen: Pen, look: Look) -> None:
    """Draw a vinyl record, half out of its sleeve."""
    out = look.between(62, 72)
    pen.oval(out, 50, 30, 30, p.INK)
    for radius in range(13, 30, 3):
        pen.line(arc(out, 50, radius, radius), 0.3, p.CHARCOAL)
    pen.oval(out, 50, 9, 9, look.accent)
    pen.rect(6, 18, 62, 82, look.main, pattern=look.pattern)
    for _ in range(look.whole(1, 3)):
        p.draw_emblem(pen, look, look.between(20, 48), look.between(32, 68), look.between(8, 16))
    pen.rect(9, 21, look.between(30, 58), 26, p.CREAM)


def t_shirt(pen: Pen, look: Look) -> None:
    """Draw a T-shirt."""
    side, cuff = 50 + look.between(21, 27), look.between(34, 54)
    sleeve = [(side + 3, 17), (side + 22, cuff), (side + 10, cuff + 8), (side, 38)]
    pen.poly(mirrored([(59, 12), *sleeve, (side, 92)]), look.main, "across", look.pattern)
    pen.poly(arc(50, 12, 9, 9, 0, 180), tone(look.main, 0.55))
    pen.line(arc(50, 12, 9, 9, 0, 180), 1.6, look.accent)
    if look.pattern is None:
        p.draw_emblem(pen, look, 50, 44, look.between(8, 14))


def trainers(pen: Pen, look: Look) -> None:
    """Draw a pair of trainers."""
    ankle, n_stripes = look.between(24, 34), look.whole(1, 3)
    for cx, cy in ((56, 38), (44, 62)):
        with pen.placed(cx, cy, 0.84):
            collar = [(6, 66), (8, ankle + 6), (14, ankle), (34, ankle + 2)]
            upper = smooth([*collar, *path("50,48 78,56 94,66 94,72 6,72")])
            pen.poly(upper, look.main, pattern=look.pattern)
            pen.poly(smooth(path("74,56 86,60 93,71 72,71 70,62"), closed=True), tone(look.main, 1.4))
            pen.rect(4, 69, 97, 76, p.WHITE, 4)
            pen.rect(4, 75, 97, 79, look.accent, 1.5)
            pen.oval(24, ankle + 2, 11, 3, tone(look.main, 0.4))
            for x in range(36, 36 + 8 * n_stripes, 8):
                pen.line([(x, 68), (x - 10, 48)], 3, look.accent)
            for i in range(4):
                pen.line([(38 + 5 * i, ankle + 9 + 4 * i), (46 + 5 * i, ankle + 6 + 4 * i)], 1.5, p.WHITE)


def framed_picture(pen: Pen, look: Look) -> None:
    """Draw a framed landscape."""
    x, y = look.between(30, 43), look.between(28, 42)
    rail, mount = look.between(5, 9), look.between(9, 14)
    for inset, colour in ((0, p.GOLD), (rail / 2, tone(p.GOLD, 0.7)), (rail * 0.7, p.GOLD), (rail, p.CREAM)):
        pen.rect(50 - x + inset, 50 - y + inset, 50 + x - inset, 50 + y - inset, colour)
    for cx, cy in ((50 - x, 50 - y), (50 + x, 50 - y), (50 + x, 50 + y), (50 - x, 50 + y)):
        pen.poly(star(cx, cy, rail * 0.8, 6, 0.6), p.GOLD)
    p.draw_landscape(pen, look, 50 - x + mount, 50 - y + mount, 50 + x - mount, 50 + y - mount)


def suitcase(pen: Pen, look: Look) -> None:
    """Draw a suitcase on wheels."""
    half, top = look.between(22, 30), look.between(26, 36)
    for side in (-1, 1):
        pen.rect(50 + side * 9 - 1, 8, 50 + side * 9 + 1, top, p.CHROME)
        pen.oval(50 + side * (half - 6), 93, 4, 4, p.INK)
    pen.rect(39, 5, 61, 10, p.INK, 2)
    pen.rect(50 - half, top, 50 + half, 91, look.main, 7, "across", look.pattern)
    for i in range(look.whole(3, 6)):
        pen.rect(54 - half + i * 8, top + 6, 56 - half + i * 8, 86, tone(look.main, 0.75), 1, "tube")
    for y in (top + 8, 80):
        pen.rect(49 - half, y, 51 + half, y + 4, look.accent)
    p.draw_emblem(pen, look, 50 + look.between(-10, 10), 62, look.between(6, 10))


def wall_clock(pen: Pen, look: Look) -> None:
    """Draw a wall clock."""
    radius, hour, minute = look.between(34, 43), look.between(0, 360), look.between(0, 360)
    for share, colour in ((1.0, look.main), (0.86, tone(look.main, 0.6)), (0.83, p.CREAM)):
        pen.oval(50, 50, radius * share, radius * share, colour)
    marks = [(30 * i, 0.62, 0.76, 2.4 if i % 3 == 0 else 1.2) for i in range(12)]
    for angle, start, end, width in (*marks, (hour, -0.1, 0.42, 2.6), (minute, -0.1, 0.64, 1.6)):
        x, y = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
        pen.line([(50 + x * start, 50 + y * start), (50 + x * end, 50 + y * end)], width, p.INK)
    pen.oval(50, 50, 2.6, 2.6, look.accent)


def perfume(pen: Pen, look: Look) -> None:
    """Draw a perfume bottle."""
    half, top, liquid = look.between(20, 30), look.between(38, 48), look.between(50, 66)
    pen.rect(43, 12, 57, 32, look.accent, 2, "tube")
    pen.rect(45, 30, 55, top, p.GOLD, 1, "tube")
    pen.rect(50 - half, top, 50 + half, 92, tone(look.main, 1.65), 7, "across")
    pen.rect(53 - half, liquid, 47 + half, 88, tone(look.main, 1.2), 4, "across")
    pen.rect(38, 60, 62, 80, p.CREAM, 1)
    p.draw_emblem(pen, look, 50, 69, 6)
    pen.rect(54 - half, top + 4, 57 - half, 86, p.WHITE, 1.5, "flat", opacity=0.6)


def bicycle(pen: Pen, look: Look) -> None:
    """Draw a bicycle."""
    radius, seat, head = look.between(17, 21), (40, look.between(36, 46)), (70, look.between(34, 42))
    rear, front, low = (24, 92 - radius), (77, 92 - radius), (47, 90 - radius)
    for hub in (rear, front):
        p.draw_wheel(pen, hub, radius, look.accent, 18)
    for a, b in ((rear, low), (rear, seat), (seat, low), (seat, head), (low, head), (head, front)):
        pen.line([a, b], 2.5, look.main)
    with pen.placed(seat[0], seat[1], 1):
        pen.line(path("50,50 48,41"), 1.6, p.STEEL)
        pen.poly(smooth(path("39,38 58,40 46,44 39,42"), closed=True), p.INK)
    with pen.placed(head[0], head[1], 1):
        pen.line(smooth(path("50,50 49,40 58,42 57,49")), 2, look.accent)
    pen.line(arc(*low, 5, 5), 1.4, p.STEEL)
    pen.line([(43, low[1] + 9), (51, low[1] - 9)], 1.4, p.INK)


def football(pen: Pen, look: Look) -> None:
    """Draw a football."""
    pen.oval(50, 50, 42, 42, p.WHITE)
    facet, turn = look.accent if look.pattern else look.main, look.between(0, 72)
    for spin in range(0, 360, 72):
        with pen.placed(50, 50, 0.84, turn + spin):
            pen.poly(path("50,50 41.2,37.9 50,35 58.8,37.9"), look.main, edge=0)
            pen.line(path("50,35 50,19 32,30"), 1.1, p.CHARCOAL)
            pen.line(path("50,19 68,30"), 1.1, p.CHARCOAL)
            pen.poly(path("42,19 58,19 64,4 50,0.5 36,4"), facet)


def office_chair(pen: Pen, look: Look) -> None:
    """Draw an office chair."""
    back, width = look.between(8, 16), look.between(17, 23)
    for x, y in path("24,90 76,90 35,94 65,94 50,87"):
        pen.line([(50, 82), (x, y)], 2.6, p.CHARCOAL)
        pen.oval(x, y + 2, 3, 3, p.INK)
    pen.rect(47.5, 48, 52.5, 84, p.STEEL, 1, "tube")
    rest = turned([(50.0, back - 2), (50 + width, back + 4), (46 + width, 52.0), (50.0, 54.0)])
    pen.poly(rest, look.main, "across", look.pattern)
    pen.poly(turned([(50.0, 57.0), (52 + width, 58), (57 + width, 66), (50.0, 71.0)]), look.main)
    for side in (-1, 1):
        x = 50 + side * (width + 5)
        pen.line(smooth([(x - side * 3, 66), (x + side * 4, 58), (x + side, 45)]), 2.4, p.CHARCOAL)
        pen.line([(x - 3, 44), (x + 3, 44)], 4, p.INK)


def office_desk(pen: Pen, look: Look) -> None:
    """Draw a desk with drawers and a lamp."""
    n_drawers, left = look.whole(2, 4), 92 - look.between(22, 30)
    pen.rect(8, 46, 12, 90, p.STEEL, shade="tube")
    pen.rect(12, 50, left, 66, tone(look.main, 0.6))
    pen.box(left, 44, 92, 90, 16, look.main)
    for y in (46 + 42 / n_drawers * i for i in range(n_drawers)):
        pen.rect(left + 2, y, 90, y + 42 / n_drawers - 1, tone(look.main, 1.15), 0.5)
        pen.rect(left / 2 + 42, y + 4, left / 2 + 50, y + 5.5, p.INK, 1)
    pen.box(4, 41, 96, 45, 30, tone(look.main, 1.08))
    pen.line(path("68,33 62,18 74,10"), 1.4, look.accent)
    pen.poly(path("70,6 78,8 82,17 70,14"), look.accent)


def filing_cabinet(pen: Pen, look: Look) -> None:
    """Draw a filing cabinet."""
    n_drawers, half = look.whole(3, 4), look.between(19, 24)
    pen.box(46 - half, 12, 46 + half, 93, 26, look.main)
    height = 79 / n_drawers
    for y in (13 + height * i for i in range(n_drawers)):
        pen.rect(48 - half, y + 0.6, 44 + half, y + height - 0.6, tone(look.main, 1.12), 1)
        pen.rect(39, y + height * 0.55, 53, y + height * 0.66, p.CHROME, 1)
        pen.rect(41, y + height * 0.24, 51, y + height * 0.44, p.WHITE)

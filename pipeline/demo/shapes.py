"""The things of the demo catalogue: each function draws the thing it is named after in a 100 x 100 square.

Whatever makes two things of a kind differ comes from the Look, so the same Look draws the same thing again.
Knows nothing of categories, photos or files.
"""

import math

from pipeline.demo import pen as p
from pipeline.demo.pen import Look, Pen, arc, mirrored, path, smooth, star, tone, turned


def sofa(pen: Pen, look: Look) -> None:
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


def table_lamp(pen: Pen, look: Look) -> None:
    top, bottom = look.between(10, 18), look.between(22, 30)
    pen.oval(50, 90, look.between(13, 19), 4, look.accent)
    pen.rect(48.5, 44, 51.5, 89, look.accent, shade="tube")
    for i in range(look.whole(1, 3)):
        pen.oval(50, 82 - 11 * i, 9 - 2 * i, 7, look.accent)
    pen.oval(50, 50, bottom, 3.5, (255, 240, 190))
    pen.poly(mirrored([(50 + top, 12), (50 + bottom, 50)]), look.main, "tube", look.pattern)


def potted_plant(pen: Pen, look: Look) -> None:
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
    side, rows = look.between(23, 27), (((0, 1, 2), (0.5, 1.5), (1,)), ((0, 1, 2), (0, 1.2), (0.5,)))
    for level, row in enumerate(rows[look.whole(0, 1)]):
        for slot in row:
            x, y, colour = 50 + (slot - 1.5) * (side + 1), 92 - (level + 1) * side, look.bright()
            pen.box(x, y, x + side, y + side, side * 0.5, colour)
            pen.rect(x + 2.5, y + 2.5, x + side - 2.5, y + side - 2.5, p.CREAM, 2)
            p.draw_emblem(pen, Look(p.CREAM, colour, None, look.rng), x + side / 2, y + side / 2, side * 0.26)


def power_drill(pen: Pen, look: Look) -> None:
    pen.rect(8, 31, 24, 33, p.CHROME, shade="rod")
    pen.poly(path("22,27 32,24 32,40 22,37"), p.INK, "rod")
    pen.poly(smooth(path("58,44 62,60 64,78 80,78 78,60 80,44")), look.main, "across")
    pen.rect(65, 54, 77, 72, p.INK, 4, "across")
    pen.rect(32, 20, look.between(80, 90), 46, look.main, 8, "rod")
    pen.rect(32, 20, 40, 46, tone(look.main, 0.55), 3, "rod")
    pen.rect(55, 48, 60, 57, look.accent, 2)
    pen.rect(55, 78, look.between(84, 92), look.between(88, 94), p.CHARCOAL, 3)
    pen.rect(58, 80, 72, 85, look.accent, 1)
    p.draw_emblem(pen, look, 54, 33, 6)


def hand_saw(pen: Pen, look: Look) -> None:
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
    out = look.between(62, 72)
    pen.oval(out, 50, 30, 30, p.INK)
    for radius in range(13, 30, 3):
        pen.line(arc(out, 50, radius, radius), 0.3, p.CHARCOAL)
    pen.oval(out, 50, 9, 9, look.accent)
    pen.rect(6, 18, 62, 82, look.main, pattern=look.pattern)
    for _ in range(look.whole(1, 3)):
        p.draw_emblem(pen, look, look.between(20, 48), look.between(32, 68), look.between(8, 16))
    pen.rect(9, 21, look.between(30, 58), 26, p.CREAM)


def smartphone(pen: Pen, look: Look) -> None:
    half, cols = look.between(19, 23), look.whole(3, 4)
    pen.rect(49 - half, 6, 51 + half, 94, look.main, 7)
    pen.rect(50.5 - half, 8, 49.5 + half, 92, p.INK, 6)
    p.draw_landscape(pen, look, 52 - half, 11, 48 + half, 90)
    step = (2 * half - 4) / cols
    for i in range(cols * look.whole(2, 4)):
        x, y = 52 - half + step * (i % cols + 0.5), 26 + 11 * (i // cols)
        pen.rect(x - 3.6, y - 3.6, x + 3.6, y + 3.6, look.bright(), 1.8)
    p.draw_keys(pen, (52 - half, 78, 48 + half, 89), cols, 1, p.WHITE)
    pen.poly([(48 + half, 11), (48 + half, 50), (60 - half, 11)], p.WHITE, "flat", opacity=0.16)


def desk_telephone(pen: Pen, look: Look) -> None:
    cord = [(22 - 4 * math.cos(i * 0.9), 42 + i * 0.9 + 2.5 * math.sin(i * 0.9)) for i in range(50)]
    pen.line(cord, 1.2, tone(look.main, 0.6))
    pen.poly(turned(path("50,38 68,40 82,72 90,88 50,90")), look.main)
    if look.whole(0, 1):
        pen.oval(50, 65, 17, 16, look.accent)
        for x, y in arc(50, 65, 12, 11, -60, 210)[::5]:
            pen.oval(x, y, 2.6, 2.5, p.INK)
    else:
        p.draw_keys(pen, (34, 50, 66, 82), 3, 4, look.accent)
    pen.poly(turned(path("66,20 84,26 86,38 72,40 66,31")), tone(look.main, 0.85))


def t_shirt(pen: Pen, look: Look) -> None:
    side, cuff = 50 + look.between(21, 27), look.between(34, 54)
    sleeve = [(side + 3, 17), (side + 22, cuff), (side + 10, cuff + 8), (side, 38)]
    pen.poly(mirrored([(59, 12), *sleeve, (side, 92)]), look.main, "across", look.pattern)
    pen.poly(arc(50, 12, 9, 9, 0, 180), tone(look.main, 0.55))
    pen.line(arc(50, 12, 9, 9, 0, 180), 1.6, look.accent)
    if look.pattern is None:
        p.draw_emblem(pen, look, 50, 44, look.between(8, 14))


def trainers(pen: Pen, look: Look) -> None:
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
    x, y = look.between(30, 43), look.between(28, 42)
    rail, mount = look.between(5, 9), look.between(9, 14)
    for inset, colour in ((0, p.GOLD), (rail / 2, tone(p.GOLD, 0.7)), (rail * 0.7, p.GOLD), (rail, p.CREAM)):
        pen.rect(50 - x + inset, 50 - y + inset, 50 + x - inset, 50 + y - inset, colour)
    for cx, cy in ((50 - x, 50 - y), (50 + x, 50 - y), (50 + x, 50 + y), (50 - x, 50 + y)):
        pen.poly(star(cx, cy, rail * 0.8, 6, 0.6), p.GOLD)
    p.draw_landscape(pen, look, 50 - x + mount, 50 - y + mount, 50 + x - mount, 50 + y - mount)


def suitcase(pen: Pen, look: Look) -> None:
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
    radius, hour, minute = look.between(34, 43), look.between(0, 360), look.between(0, 360)
    for share, colour in ((1.0, look.main), (0.86, tone(look.main, 0.6)), (0.83, p.CREAM)):
        pen.oval(50, 50, radius * share, radius * share, colour)
    marks = [(30 * i, 0.62, 0.76, 2.4 if i % 3 == 0 else 1.2) for i in range(12)]
    for angle, start, end, width in (*marks, (hour, -0.1, 0.42, 2.6), (minute, -0.1, 0.64, 1.6)):
        x, y = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
        pen.line([(50 + x * start, 50 + y * start), (50 + x * end, 50 + y * end)], width, p.INK)
    pen.oval(50, 50, 2.6, 2.6, look.accent)


def perfume(pen: Pen, look: Look) -> None:
    half, top, liquid = look.between(20, 30), look.between(38, 48), look.between(50, 66)
    pen.rect(43, 12, 57, 32, look.accent, 2, "tube")
    pen.rect(45, 30, 55, top, p.GOLD, 1, "tube")
    pen.rect(50 - half, top, 50 + half, 92, tone(look.main, 1.65), 7, "across")
    pen.rect(53 - half, liquid, 47 + half, 88, tone(look.main, 1.2), 4, "across")
    pen.rect(38, 60, 62, 80, p.CREAM, 1)
    p.draw_emblem(pen, look, 50, 69, 6)
    pen.rect(54 - half, top + 4, 57 - half, 86, p.WHITE, 1.5, "flat", opacity=0.6)


def hair_dryer(pen: Pen, look: Look) -> None:
    pen.line(smooth(path("66,88 74,97 86,90 94,97")), 1.6, p.INK)
    with pen.placed(60, 62, 1, -look.between(10, 24)):
        pen.rect(44, 34, 57, 84, tone(look.main, 0.85), 5, "tube", look.pattern)
        pen.rect(47, 50, 53, 60, look.accent, 2)
    pen.poly(path("8,20 30,24 30,46 8,50"), p.INK, "rod")
    pen.poly(smooth(path("26,24 50,14 74,12 90,24 91,40 80,54 60,54 26,46"), closed=True), look.main, "ball")
    pen.rect(30, 22, 35, 48, look.accent, 1, "rod")
    pen.oval(80, 33, look.between(8, 11), 15, p.CHARCOAL)
    p.draw_emblem(pen, look, 56, 33, 6)


def bicycle(pen: Pen, look: Look) -> None:
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
    pen.oval(50, 50, 42, 42, p.WHITE)
    facet, turn = look.accent if look.pattern else look.main, look.between(0, 72)
    for spin in range(0, 360, 72):
        with pen.placed(50, 50, 0.84, turn + spin):
            pen.poly(path("50,50 41.2,37.9 50,35 58.8,37.9"), look.main, edge=0)
            pen.line(path("50,35 50,19 32,30"), 1.1, p.CHARCOAL)
            pen.line(path("50,19 68,30"), 1.1, p.CHARCOAL)
            pen.poly(path("42,19 58,19 64,4 50,0.5 36,4"), facet)


def washing_machine(pen: Pen, look: Look) -> None:
    top, radius = look.between(12, 20), look.between(18, 23)
    pen.box(18, top, 78, 93, 22, look.main)
    pen.rect(20, top + 2, 42, top + 14, tone(look.main, 0.92), 1)
    pen.rect(62, top + 4, 76, top + 11, p.INK, 1)
    pen.oval(53, top + 8, 5, 5, p.CHROME)
    cy = (top + 108) / 2
    for share, colour in ((1.0, p.CHROME), (0.84, p.STEEL), (0.74, p.INK), (0.66, p.GLASS)):
        pen.oval(48, cy, radius * share, radius * share, colour)
    pen.poly([(48 + x, cy + y) for x, y in smooth(path("-12,6 -4,2 4,7 12,5 6,13 -6,13"))], look.accent)


def kettle(pen: Pen, look: Look) -> None:
    top, bottom, height = look.between(15, 20), look.between(24, 30), look.between(24, 34)
    pen.line(smooth([(48 + top, height + 4), (84, height + 4), (88, 50), (46 + bottom, 76)]), 5, p.INK)
    pen.poly([(52 - top, height + 4), (18, height + 2), (46 - bottom * 0.7, 56)], tone(look.main, 0.9))
    body = turned([(48 + top, height), (46 + bottom * 0.9, 56), (48 + bottom, 84)], 48)
    pen.poly(body, look.main, "tube", look.pattern)
    pen.poly(arc(48, height, top, 8, 180, 360), tone(look.main, 0.8), "tube")
    pen.oval(48, height - 10, 4, 4, p.INK)
    pen.rect(48 - bottom, 83, 48 + bottom, 92, p.INK, 3, "tube")
    pen.rect(54, 54, 59, 76, p.GLASS, 2)


def laptop(pen: Pen, look: Look) -> None:
    half, top = look.between(32, 38), look.between(14, 24)
    pen.rect(50 - half, top, 50 + half, 62, look.main, 3)
    pen.rect(52 - half, top + 2, 48 + half, 59, p.INK, 1)
    p.draw_landscape(pen, look, 54 - half, top + 4, 46 + half, 57)
    pen.poly([(50 - half, 62), (50 + half, 62), (58 + half, 88), (42 - half, 88)], tone(look.main, 1.15))
    pen.rect(42 - half, 87.5, 58 + half, 91, tone(look.main, 0.75), 2)
    for row in range(4):
        reach = (half - 3) * (1 + 0.06 * row)
        p.draw_keys(pen, (50 - reach, 64 + 3.6 * row, 50 + reach, 67.4 + 3.6 * row), 13, 1, p.CHARCOAL)
    pen.poly(path("41,80 59,80 60,86.5 40,86.5"), look.main)


def tower_pc(pen: Pen, look: Look) -> None:
    right, n_fans = look.between(66, 76), look.whole(2, 3)
    pen.box(28, 12, right, 92, 24, p.CHARCOAL)
    pen.rect(31, 16, right - 3, 88, p.INK, 2)
    for i in range(n_fans):
        for spin in range(0, 360, 45):
            with pen.placed(14 + right / 2, 20 + 66 * (i + 0.5) / n_fans, 0.6 / n_fans, spin):
                pen.poly(smooth(path("50,50 62,30 56,12 76,22 66,42"), closed=True), look.accent)
                pen.line(arc(50, 50, 50, 50, 0, 45), 7, tone(look.main, 1.3), "flat")


def office_chair(pen: Pen, look: Look) -> None:
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
    n_drawers, half = look.whole(3, 4), look.between(19, 24)
    pen.box(46 - half, 12, 46 + half, 93, 26, look.main)
    height = 79 / n_drawers
    for y in (13 + height * i for i in range(n_drawers)):
        pen.rect(48 - half, y + 0.6, 44 + half, y + height - 0.6, tone(look.main, 1.12), 1)
        pen.rect(39, y + height * 0.55, 53, y + height * 0.66, p.CHROME, 1)
        pen.rect(41, y + height * 0.24, 51, y + height * 0.44, p.WHITE)


def gamepad(pen: Pen, look: Look) -> None:
    grip, wide = look.between(76, 90), 50 + look.between(36, 44)
    for x in (16, 66):
        pen.rect(x, 23, x + 18, 34, p.INK, 3)
    lobe = [(wide, 52.0), (wide + 2, grip - 6), (wide - 4, grip), (72.0, 66.0), (50.0, 63.0)]
    pen.poly(turned([*path("50,30 66,27 80,30"), *lobe]), look.main, "ball", look.pattern)
    pen.poly(path("24,35 28,35 28,41 34,41 34,45 28,45 28,51 24,51 24,45 18,45 18,41 24,41"), p.INK)
    for (cx, cy), colour in zip(path("80,43 74,49 68,43 74,37"), p.BRIGHTS, strict=False):
        pen.oval(cx, cy, 2.8, 2.8, colour)
    for x in (37, 63):
        pen.oval(x, 57, 7.5, 7.5, p.INK)
        pen.oval(x, 56, 5, 5, p.CHARCOAL)
    pen.rect(41, 34, 59, 46, look.accent, 2)


def handheld_console(pen: Pen, look: Look) -> None:
    inset = look.between(24, 30)
    pen.rect(3, inset, 97, 100 - inset, look.main, 12)
    pen.rect(77, inset, 97, 100 - inset, look.accent, 10)
    pen.rect(20, inset - 1, 80, 101 - inset, p.CHARCOAL, 1)
    p.draw_landscape(pen, look, 23, inset + 2, 77, 98 - inset)
    pen.poly(star(look.between(32, 68), 52, 6), (250, 210, 60))
    for x, stick, buttons in ((11.5, 40.0, 58.0), (88.5, 60.0, 42.0)):
        pen.oval(x, stick, 5, 5, p.INK)
        for dx, dy in path("4.2,0 0,4.2 -4.2,0 0,-4.2"):
            pen.oval(x + dx, buttons + dy, 1.9, 1.9, p.WHITE)


def console_with_pad(pen: Pen, look: Look) -> None:
    height = look.between(11, 17)
    pen.box(12, 50 - height, 78, 50, 40, p.CHARCOAL)
    pen.rect(12, 50 - height * 0.55, 78, 50 - height * 0.45, look.accent)
    pen.line(smooth(path("66,48 74,58 60,64 58,72")), 1.1, p.INK)
    with pen.placed(look.between(38, 56), 76, 0.52):
        gamepad(pen, look)

"""Electric devices of the demo catalogue: each function draws one in a 100 x 100 square, as those of shapes.py do."""

import math

from pipeline.demo import pen as p
from pipeline.demo.pen import Look, Pen, arc, mirrored, path, smooth, star, tone, turned


def table_lamp(pen: Pen, look: Look) -> None:
    """Draw a table lamp."""
    top, bottom = look.between(10, 18), look.between(22, 30)
    pen.oval(50, 90, look.between(13, 19), 4, look.accent)
    pen.rect(48.5, 44, 51.5, 89, look.accent, shade="tube")
    for i in range(look.whole(1, 3)):
        pen.oval(50, 82 - 11 * i, 9 - 2 * i, 7, look.accent)
    pen.oval(50, 50, bottom, 3.5, (255, 240, 190))
    pen.poly(mirrored([(50 + top, 12), (50 + bottom, 50)]), look.main, "tube", look.pattern)


def power_drill(pen: Pen, look: Look) -> None:
    """Draw a cordless drill."""
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


def smartphone(pen: Pen, look: Look) -> None:
    """Draw a smartphone with its home screen."""
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
    """Draw a desk telephone with a dial or keys."""
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


def hair_dryer(pen: Pen, look: Look) -> None:
    """Draw a hair dryer."""
    pen.line(smooth(path("66,88 74,97 86,90 94,97")), 1.6, p.INK)
    with pen.placed(60, 62, 1, -look.between(10, 24)):
        pen.rect(44, 34, 57, 84, tone(look.main, 0.85), 5, "tube", look.pattern)
        pen.rect(47, 50, 53, 60, look.accent, 2)
    pen.poly(path("8,20 30,24 30,46 8,50"), p.INK, "rod")
    pen.poly(smooth(path("26,24 50,14 74,12 90,24 91,40 80,54 60,54 26,46"), closed=True), look.main, "ball")
    pen.rect(30, 22, 35, 48, look.accent, 1, "rod")
    pen.oval(80, 33, look.between(8, 11), 15, p.CHARCOAL)
    p.draw_emblem(pen, look, 56, 33, 6)


def washing_machine(pen: Pen, look: Look) -> None:
    """Draw a washing machine."""
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
    """Draw a kettle."""
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
    """Draw an open laptop."""
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
    """Draw a tower PC with fans."""
    right, n_fans = look.between(66, 76), look.whole(2, 3)
    pen.box(28, 12, right, 92, 24, p.CHARCOAL)
    pen.rect(31, 16, right - 3, 88, p.INK, 2)
    for i in range(n_fans):
        for spin in range(0, 360, 45):
            with pen.placed(14 + right / 2, 20 + 66 * (i + 0.5) / n_fans, 0.6 / n_fans, spin):
                pen.poly(smooth(path("50,50 62,30 56,12 76,22 66,42"), closed=True), look.accent)
                pen.line(arc(50, 50, 50, 50, 0, 45), 7, tone(look.main, 1.3), "flat")


def gamepad(pen: Pen, look: Look) -> None:
    """Draw a gamepad."""
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
    """Draw a handheld game console."""
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
    """Draw a game console with its gamepad."""
    height = look.between(11, 17)
    pen.box(12, 50 - height, 78, 50, 40, p.CHARCOAL)
    pen.rect(12, 50 - height * 0.55, 78, 50 - height * 0.45, look.accent)
    pen.line(smooth(path("66,48 74,58 60,64 58,72")), 1.1, p.INK)
    with pen.placed(look.between(38, 56), 76, 0.52):
        gamepad(pen, look)

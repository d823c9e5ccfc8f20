"""Units of measurement, by every name that they have; a unit beside a number does not change the number."""

NAMES = """
m: meter meters metre metres
cm: centimeter centimeters centimetre centimetres cms
mm: millimeter millimeters millimetre millimetres
km: kilometer kilometers kilometre kilometres kms
in: inch inches
ft: foot feet
yd: yard yards yds
mi: mile miles
g: gram grams
kg: kilogram kilograms kgs
mg: milligram milligrams
lb: pound pounds lbs
oz: ounce ounces
t: ton tons tonne tonnes
s: sec secs second seconds
min: mins minute minutes
h: hr hrs hour hours
day: days
week: weeks
month: months
year: years yr yrs
l: liter liters litre litres
ml: milliliter milliliters millilitre millilitres
gal: gallon gallons
mph:
kph: kmh kmph
n: newton newtons
j: joule joules
w: watt watts
kw: kilowatt kilowatts
v: volt volts
a: ampere amperes amp amps
pa: pascal pascals
k: kelvin
hz: hertz
mol: mole moles
dollar: dollars usd bucks
cent: cents
euro: euros eur
rupee: rupees rs
degree: degrees deg
radian: radians rad
percent: percentage pct
square: sq squared
cubic: cu cubed
unit: units
"""
UNITS = {
    name: line.partition(":")[0]
    for line in NAMES.strip().splitlines()
    for name in (line.partition(":")[0], *line.partition(":")[2].split())
}
"""The first name of each unit, by all of its names."""


def unit_name(words: list[str]) -> str | None:
    """One name for a unit such as `square cm`, `cm ^ 2` or `km / h`; None when a word in it is no unit."""
    names: list[str] = []
    power = ""
    for word in words:
        if word in ("^", "/", "*", "per") or word.isdigit():
            names.append({"per": "/", "^": "", "*": ""}.get(word, word))
        elif (name := UNITS.get(word.lower().rstrip("."))) is None:
            return None
        elif name in ("square", "cubic"):
            power = "2" if name == "square" else "3"
            if names and names[-1] not in ("/",):
                names.append(power)
                power = ""
        else:
            names += [name, power]
            power = ""
    return "".join(names) or None

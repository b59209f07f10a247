"""What MusiCNN's tags and the recipes' styles say in plain words."""

from __future__ import annotations

# Tagger tag -> what it says of the music. Only tags whose meaning is plain.
GENRES = {
    "msd:rock": "rock", "msd:pop": "pop", "msd:jazz": "jazz", "msd:metal": "metal", "msd:electronic": "electronic",
    "msd:folk": "folk", "msd:punk": "punk", "msd:blues": "blues", "msd:ambient": "ambient",
    "msd:experimental": "experimental", "msd:Hip-Hop": "hip-hop", "msd:country": "country", "msd:funk": "funk",
    "msd:House": "house", "msd:hard rock": "hard rock", "msd:heavy metal": "heavy metal", "msd:electro": "electro",
    "msd:soul": "soul", "msd:rnb": "rhythm and blues",
    "mtt:classical": "classical", "mtt:classic": "classical", "mtt:techno": "techno", "mtt:indian": "Indian",
    "mtt:opera": "opera", "mtt:new age": "new age", "mtt:country": "country", "mtt:metal": "metal",
    "mtt:rock": "rock", "mtt:dance": "dance", "mtt:electronic": "electronic", "mtt:ambient": "ambient",
    "mtt:pop": "pop",
}  # fmt: skip
MOODS = {
    "msd:Mellow": "mellow", "msd:chillout": "relaxed", "msd:chill": "relaxed", "msd:beautiful": "beautiful",
    "msd:sad": "sad", "msd:happy": "happy", "msd:party": "lively", "msd:dance": "danceable", "mtt:loud": "loud",
    "mtt:quiet": "quiet", "mtt:soft": "soft", "mtt:ambient": "calm", "msd:ambient": "calm", "msd:metal": "aggressive",
    "mtt:weird": "strange", "mtt:beat": "rhythmic", "msd:sexy": "sensual", "msd:catchy": "catchy",
    "msd:easy listening": "easy",
}  # fmt: skip
INSTRUMENTS = {
    "mtt:guitar": "guitar", "msd:guitar": "guitar", "mtt:strings": "strings", "mtt:drums": "drums",
    "mtt:piano": "piano", "mtt:violin": "violin", "mtt:synth": "synthesizer", "mtt:flute": "flute",
    "mtt:harpsichord": "harpsichord", "mtt:sitar": "sitar", "mtt:harp": "harp", "mtt:cello": "cello",
    "mtt:choir": "choir", "mtt:beats": "drums", "mtt:choral": "choir",
}  # fmt: skip
VOICE_TAGS = ("mtt:vocal", "mtt:vocals", "mtt:singing", "mtt:voice", "mtt:female", "mtt:male", "mtt:woman",
              "mtt:man", "mtt:choir", "mtt:choral", "mtt:female voice", "mtt:male voice",
              "msd:female vocalists", "msd:male vocalists")  # fmt: skip

# Style of a groove or score -> the words of GENRES that mean something like it.
_JAZZ, _ROCK = ("jazz", "blues", "soul", "funk"), ("rock", "hard rock", "metal", "heavy metal", "punk", "pop")
_DANCE = ("electronic", "techno", "house", "dance", "electro", "ambient")
BROADER = {
    "big band swing": _JAZZ, "jazz": _JAZZ, "jazz waltz": _JAZZ, "jazz fusion": _JAZZ, "Dixieland jazz": _JAZZ,
    "bossa nova": ("jazz", "pop", "soul"), "samba": ("jazz", "funk", "dance"),
    "salsa and Afro-Cuban": ("jazz", "funk", "dance"), "cha-cha": ("jazz", "dance"),
    "rhumba and bolero": ("jazz", "folk"), "tango": ("classical", "jazz"), "calypso": ("folk", "pop"),
    "reggae": ("pop", "soul", "funk"), "ska": ("punk", "rock"), "blues": (*_JAZZ, "rock"),
    "boogie-woogie": (*_JAZZ, "rock"), "rock": _ROCK, "soft rock": _ROCK, "rock and roll": (*_ROCK, "blues"),
    "heavy metal": _ROCK, "punk rock": _ROCK, "pop": ("pop", "rock", "soul", "dance"),
    "ballad": ("pop", "soul", "folk", "new age"), "soul": ("soul", "pop", "funk", "rhythm and blues"),
    "rhythm and blues": ("soul", "rhythm and blues", "pop", "funk"), "funk": ("funk", "soul", "electronic"),
    "disco": ("funk", "dance", "electronic", "pop"), "hip-hop": ("hip-hop", "electronic", "funk"),
    "techno": _DANCE, "trance": _DANCE, "house": _DANCE, "drum and bass": _DANCE, "dance pop": (*_DANCE, "pop"),
    "ambient": ("ambient", "electronic", "new age", "experimental"), "country": ("country", "folk"),
    "bluegrass": ("country", "folk"), "folk": ("folk", "country"), "zydeco": ("country", "folk"),
    "waltz": ("classical", "folk"), "polka": ("folk", "country"), "march": ("classical", "folk"),
    "foxtrot and quickstep": ("jazz",), "ragtime": ("jazz", "blues", "classical"), "show tune": ("jazz", "pop"),
    "hymn and spiritual": ("classical", "folk", "soul"), "arpeggiated accompaniment": ("classical", "new age"),
    "Baroque chorale": ("classical", "opera"), "Renaissance madrigal": ("classical", "opera"),
    "Renaissance vocal music": ("classical", "opera"), "Classical-period chamber music": ("classical",),
    "orchestral music": ("classical",), "electronic music": (*_DANCE, "experimental"),
    "death metal": ("metal", "heavy metal", "hard rock", "rock", "punk"),
    "metal": ("metal", "heavy metal", "hard rock", "rock", "punk"),
}  # fmt: skip
# Style of a groove -> the words of GENRES that name it; it is stated only where the tagger gives one of them.
_DANCED = ("electronic", "techno", "house", "dance", "electro")
NAMED_BY = {
    "big band swing": ("jazz",), "jazz": ("jazz",), "jazz waltz": ("jazz",), "jazz fusion": ("jazz",),
    "Dixieland jazz": ("jazz",), "blues": ("blues",), "boogie-woogie": ("blues",), "rock": ("rock", "hard rock"),
    "soft rock": ("rock", "pop"), "rock and roll": ("rock", "hard rock"),
    "heavy metal": ("metal", "heavy metal", "hard rock"),
    "punk rock": ("punk", "rock", "hard rock"), "pop": ("pop",), "soul": ("soul",), "funk": ("funk",),
    "rhythm and blues": ("rhythm and blues", "soul"), "disco": ("dance", "house"), "hip-hop": ("hip-hop",),
    "techno": _DANCED, "trance": _DANCED, "house": _DANCED, "drum and bass": _DANCED, "dance pop": _DANCED,
    "ambient": ("ambient", "electronic"), "country": ("country",), "bluegrass": ("country", "folk"),
    "folk": ("folk", "country"), "zydeco": ("country", "folk"),
}  # fmt: skip
ERAS = {
    "Renaissance": "Renaissance", "Baroque": "Baroque period", "Classical-period": "Classical period",
    "ragtime": "early twentieth century", "swing": "swing era", "boogie": "first half of the twentieth century",
    "disco": "1970s", "techno": "late twentieth century", "death metal": "time since the late 1980s",
}  # fmt: skip
# A word in style, genre, mood or energy -> what such music is used for.
USES = {
    "orchestral": ("an adventure film", "a fantasy game"), "metal": ("a fight in a game", "a hard workout"),
    "ambient": ("a meditation", "a slow scene in space"), "techno": ("a club", "a racing game"),
    "house": ("a party", "a fashion show"), "jazz": ("a bar scene", "a quiet dinner"),
    "ragtime": ("a silent film", "an old saloon"), "classical": ("a period film", "a concert hall"),
    "chorale": ("a church", "a solemn ceremony"), "madrigal": ("a historical film", "a court scene"),
    "folk": ("a village feast", "a travel film"), "Irish": ("a dance in a pub", "a travel film"),
    "hip-hop": ("a street scene", "a dance video"), "rock": ("a road film", "a sports video"),
    "blues": ("a smoky bar", "a road film"), "country": ("a western", "a road trip"),
    "high energy": ("a workout", "an action scene"), "low energy": ("a calm evening", "a quiet film scene"),
    "electronic": ("a science-fiction game", "a video about technology"), "waltz": ("a ball", "a wedding dance"),
    "sad": ("a farewell scene",), "happy": ("a cheerful advertisement",), "march": ("a parade",),
}  # fmt: skip
# Energy and valence, both guessed -> moods.
FEELINGS = {
    ("low", "dark"): ("melancholic", "sombre"), ("low", "neutral"): ("calm", "reflective"),
    ("low", "bright"): ("peaceful", "warm"), ("medium", "dark"): ("brooding", "serious"),
    ("medium", "neutral"): ("steady", "neutral"), ("medium", "bright"): ("light", "cheerful"),
    ("high", "dark"): ("aggressive", "tense"), ("high", "neutral"): ("driving", "intense"),
    ("high", "bright"): ("lively", "joyful"),
}  # fmt: skip

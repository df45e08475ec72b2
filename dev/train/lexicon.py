"""The critic's hand-made lexicon: what people praise and blame, and with which words."""


def words(text: str) -> list[str]:
    """Entries separated by commas or line ends."""
    return [entry.strip() for entry in text.replace("\n", ",").split(",") if entry.strip()]


def lines(text: str) -> list[str]:
    """Entries separated by semicolons or line ends."""
    return [entry.strip() for entry in text.replace("\n", ";").split(";") if entry.strip()]


GOOD = words("""
good, great, excellent, wonderful, fantastic, amazing, brilliant, superb, lovely, beautiful, perfect, awesome, terrific,
outstanding, marvelous, marvellous, delightful, charming, enjoyable, pleasant, nice, fine, fun, funny, hilarious, witty,
clever, smart, intelligent, thoughtful, insightful, moving, touching, heartwarming, heartfelt, uplifting, inspiring,
inspired, gripping, riveting, thrilling, exciting, engaging, engrossing, absorbing, compelling, captivating, fascinating,
interesting, memorable, unforgettable, stunning, gorgeous, breathtaking, magnificent, splendid, spectacular, impressive,
remarkable, extraordinary, exceptional, incredible, phenomenal, fabulous, glorious, masterful, powerful, poignant, elegant,
graceful, stylish, fresh, original, inventive, imaginative, creative, innovative, refreshing, sincere, honest, genuine,
authentic, believable, convincing, solid, strong, sturdy, durable, reliable, dependable, comfortable, cozy, cosy, spacious,
clean, spotless, tidy, quiet, bright, sleek, sharp, crisp, clear, smooth, fast, quick, speedy, responsive, prompt, efficient,
easy, simple, handy, useful, helpful, practical, convenient, affordable, cheap and good, well worth it, worthwhile, valuable,
friendly, kind, polite, courteous, attentive, caring, welcoming, warm, generous, professional, knowledgeable, patient,
delicious, tasty, yummy, scrumptious, mouthwatering, flavorful, juicy, tender, succulent, savory, crunchy, hearty, divine,
heavenly, satisfying, filling, first-rate, first-class, top-notch, world-class, high-quality, well-made, well-acted,
well-written, well-crafted, well-paced, well-built, well-designed, well-directed, flawless, faultless, impeccable, superior,
stellar, dazzling, sparkling, radiant, enchanting, magical, dreamy, hypnotic, mesmerizing, mesmerising, entertaining, amusing,
playful, whimsical, sweet, adorable, cute, lovable, likable, likeable, endearing, tender, wise, profound, deep, rich, subtle,
nuanced, complex, layered, lyrical, poetic, visionary, ambitious, bold, daring, courageous, brave, lively, energetic,
vibrant, vivid, spirited, exhilarating, electrifying, suspenseful, intense, taut, tight, satisfactory, decent, cool,
rewarding, worthy, admirable, praiseworthy, commendable, noteworthy, timeless, classic, iconic, legendary, ingenious, stirring,
eloquent, sensitive, sympathetic, humane, humorous, joyful, joyous, cheerful, happy, hopeful, romantic, sexy, luminous,
exquisite, lush, sumptuous, sublime, transcendent, triumphant, accomplished, assured, confident, polished, skillful, deft,
talented, gifted, unique, special, favorite, effective, successful, accurate, precise, lightweight, portable, versatile,
flexible, robust, rugged, secure, safe, trustworthy, fair, reasonable, honorable, trusty, ideal, super, stupendous, wondrous,
priceless, irresistible, addictive, unmissable, must-see, must-have, loud and clear, long-lasting, fun-filled, feel-good,
laugh-out-loud funny, edge-of-your-seat, thought-provoking, eye-opening, crowd-pleasing, jaw-dropping, spot-on, dead-on,
compassionate, perceptive, observant, literate, offbeat, quirky, zany, vivacious, affecting, resonant, haunting, beguiling,
bewitching, tantalizing, seductive, sensual, colorful, colourful, evocative, atmospheric, immersive, seamless, intuitive,
painless, effortless, hassle-free, user-friendly, plush, soft, luxurious, fragrant, aromatic, fluffy, moist, flaky, zesty,
perfectly cooked, piping hot, generous, plentiful, bountiful, scenic, picturesque, serene, peaceful, relaxing, restful
""")

BAD = words("""
bad, terrible, awful, horrible, dreadful, poor, lousy, lame, crappy, crap, shoddy, mediocre, inferior, disappointing, boring,
dull, tedious, tiresome, monotonous, bland, flat, lifeless, uninspired, unoriginal, predictable, formulaic, generic, cliched,
clichéd, trite, hackneyed, stale, derivative, forgettable, unmemorable, pointless, meaningless, senseless, aimless, mindless,
stupid, dumb, idiotic, moronic, silly, foolish, ridiculous, ludicrous, absurd, laughable, pathetic, sad, depressing, dreary,
bleak, grim, gloomy, miserable, painful, unbearable, unwatchable, unreadable, insufferable, excruciating, annoying, irritating,
aggravating, frustrating, infuriating, maddening, obnoxious, grating, shrill, whiny, loud, noisy, messy, sloppy, clumsy,
awkward, stilted, wooden, stiff, forced, contrived, artificial, phony, fake, insincere, manipulative, pretentious,
self-indulgent, overblown, bloated, overlong, overwrought, overrated, overpriced, expensive, costly, worthless, useless,
unhelpful, rude, unfriendly, impolite, arrogant, dismissive, careless, incompetent, unprofessional, inattentive, slow,
sluggish, laggy, buggy, glitchy, broken, defective, faulty, damaged, flimsy, fragile, brittle, weak, cheap, cheaply made,
tacky, ugly, hideous, unattractive, grotesque, gross, disgusting, revolting, nauseating, repulsive, vile, nasty, foul, filthy,
dirty, dingy, grimy, smelly, stinky, musty, moldy, rotten, rancid, spoiled, soggy, greasy, oily, burnt, undercooked,
overcooked, raw, cold, lukewarm, dry, tough, chewy, rubbery, tasteless, flavorless, salty, bitter, sour, inedible, uneatable,
unappetizing, unpleasant, uncomfortable, cramped, crowded, confusing, convoluted, incoherent, incomprehensible, muddled,
disjointed, uneven, choppy, jumbled, chaotic, thin, shallow, superficial, hollow, empty, vacuous, vapid, inane, insipid,
juvenile, childish, immature, crude, crass, vulgar, tasteless, offensive, insulting, sexist, racist, cruel, mean, mean-spirited,
hateful, unfunny, humorless, charmless, joyless, soulless, heartless, cold-blooded, unconvincing, implausible, unbelievable,
unrealistic, inaccurate, misleading, deceptive, dishonest, fraudulent, unreliable, unstable, unresponsive, unusable, inconvenient,
difficult, impossible to use, complicated, cumbersome, bulky, heavy, outdated, dated, obsolete, inadequate, insufficient,
unacceptable, inexcusable, atrocious, abysmal, appalling, horrendous, horrid, horrific, ghastly, deplorable, disgraceful,
shameful, embarrassing, cringeworthy, cringe-worthy, amateurish, inept, botched, bungled, half-baked, half-hearted, lazy,
tired, listless, plodding, ponderous, turgid, leaden, lumbering, meandering, rambling, repetitive, redundant, unnecessary,
gratuitous, excessive, heavy-handed, ham-fisted, preachy, sappy, sentimental, mawkish, saccharine, cloying, syrupy, cheesy,
corny, hokey, goofy, hysterical mess, poorly made, poorly written, poorly acted, badly directed, badly written, ill-conceived,
misguided, misbegotten, unfocused, undercooked, underwhelming, unsatisfying, unimpressive, unremarkable, uninteresting,
uninvolving, unengaging, unexciting, unimaginative, lackluster, lacklustre, pedestrian, routine, ordinary, middling, so-so,
subpar, sub-par, substandard, second-rate, third-rate, low-quality, low-grade, bottom-of-the-barrel, abominable, toxic,
dangerous, unsafe, hazardous, harmful, scratchy, itchy, wobbly, leaky, creaky, rusty, blurry, grainy, fuzzy, muffled,
tinny, garbled, distorted, faint, dim, unreadable, sickening, frightful, wretched, woeful, sorry, regrettable, unfortunate,
hopeless, helpless, doomed, dead, dead on arrival, stagnant, inert, anemic, feeble, limp, tepid, watered-down, toothless,
unintelligible, unsympathetic, unlikable, unlikeable, one-note, one-dimensional, cardboard, cartoonish, cookie-cutter,
by-the-numbers, threadbare, slapdash, slipshod, ragged, rough, patchy, spotty, inconsistent, erratic, stuffy, stodgy, smug,
bitter, angry, dour, sour, morose, bothersome, troublesome, problematic, flawed, deeply flawed, wasteful, wasted, wrong,
negative, unhappy, unsatisfactory, unprofessional, unsanitary, unhygienic, understaffed, unorganized, disorganized, late
""")

GOOD_THINGS = words("""
masterpiece, triumph, gem, hidden gem, treasure, delight, joy, pleasure, treat, winner, success, hit, must-see, classic,
work of art, tour de force, miracle, marvel, wonder, blessing, bargain, steal, keeper, lifesaver, revelation, breath of fresh air,
great time, good time, feast for the eyes, step up, huge improvement, great deal, great value, pleasant surprise,
perfect gift, solid choice, charmer, crowd pleaser, winning combination, knockout, dream come true, labor of love
""")

BAD_THINGS = words("""
disaster, mess, failure, flop, dud, bore, snooze, waste of time, waste of money, joke, bad joke, insult, disgrace, travesty,
embarrassment, letdown, let-down, disappointment, rip-off, ripoff, scam, nightmare, chore, ordeal, piece of junk, piece of crap,
train wreck, trainwreck, shambles, fiasco, catastrophe, mistake, bad call, total loss, lemon, stinker, turkey, fraud, sham,
mockery, big letdown, step backward, missed opportunity, pile of garbage, load of rubbish, hot mess, eyesore, headache,
pain, torture, big mistake, poor excuse, slog, misfire, bomb, yawn, cheat, con, hassle
""")

GOOD_QUALITIES = words("""
charm, wit, humor, humour, heart, warmth, style, grace, intelligence, energy, imagination, originality, suspense, depth,
passion, beauty, elegance, skill, talent, craft, brilliance, insight, honesty, sincerity, tenderness, chemistry, magic, flair,
excitement, tension, emotion, soul, wisdom, power, quality, flavor, comfort, value, care, attention to detail, personality,
laughs, thrills, surprises, logic, coherence, substance, point, purpose, spark, life, conviction, credibility, subtlety
""")

BAD_QUALITIES = words("""
problems, flaws, faults, issues, defects, bugs, errors, mistakes, glitches, cliches, stereotypes, plot holes, gimmicks, noise,
boredom, confusion, silliness, stupidity, violence, gore, melodrama, pretension, sentimentality, clumsiness, delays, complaints,
excuses, lies, disappointment, regrets, frustration, nonsense, junk, garbage, trash, filler, padding, bad smell, stains, dirt,
crashes, scratches, cracks, leaks, hidden fees, long waits, rude staff, bad acting, bad jokes, weak dialogue, empty talk
""")

LIKE = words("""
love, like, enjoy, adore, admire, appreciate, recommend, treasure, cherish, relish, value, highly recommend, praise
""")
LIKED = words("""
loved, liked, enjoyed, adored, admired, appreciated, relished, cherished, really liked, thoroughly enjoyed, fell in love with,
was impressed by, was blown away by, was delighted with, was pleased with, was happy with, was moved by, was charmed by,
was thrilled with, am in love with, am pleased with, am happy with, am satisfied with, am glad I bought, am impressed with,
had a great time with, had fun with, laughed all through, can't get enough of, couldn't put down, couldn't stop smiling at
""")
DISLIKE = words("""
hate, dislike, detest, despise, loathe, regret, resent, avoid, abhor
""")
DISLIKED = words("""
hated, disliked, detested, despised, loathed, regretted, regret, regret buying, avoided, was disappointed by, was disappointed with,
was bored by, was annoyed by, was let down by, was disgusted by, was appalled by, was frustrated with, am disappointed in,
am unhappy with, am upset about, am sick of, am tired of, couldn't stand, can't stand, couldn't finish, couldn't sit through,
walked out of, fell asleep during, returned, had to return, gave up on, threw away, wasted my money on, wasted my time with,
had trouble with, had nothing but problems with, got sick from, struggled through, yawned through, cringed at, suffered through
""")

GOOD_VERBS = words("""
works perfectly, works great, works well, works like a charm, works as advertised, fits perfectly, fits well, looks great,
looks beautiful, sounds great, sounds amazing, feels great, tastes great, tastes amazing, smells wonderful, never disappoints,
exceeded my expectations, delivers, shines, succeeds, soars, charms, delights, dazzles, satisfies, impresses, pays off,
holds up well, does the job, does exactly what it says, gets better every time, lasts a long time, stands out, steals the show,
made my day, made me laugh, made me smile, made me happy, kept me interested, kept me on the edge of my seat, won me over,
moved me to tears, hits the spot, hits all the right notes, is worth every penny, is worth the price, is worth seeing,
is worth your time, was worth the wait, could not be better, couldn't be better, is a step above the rest, blew me away,
rocks, rules, is second to none, never fails, never gets old, is hard to beat, is the best, ranks with the best,
entertains from start to finish, has it all, has a lot to offer, has plenty of charm, grows on you, draws you in,
pulls you in, sticks with you, stays with you, touches the heart, goes down easy, runs smoothly, charges quickly,
holds a charge, arrived early, arrived on time, came quickly, saved me a lot of money, saved the day, beats the competition
""")

BAD_VERBS = words("""
doesn't work, does not work, did not work, didn't work at all, stopped working, quit working, broke, broke after a week,
broke the first day, fell apart, falls apart, falls flat, fails, fails miserably, failed, disappoints, drags, drags on, stinks,
sucks, bombs, bores, irritates, annoys, let me down, lets you down, leaves you cold, left me cold, put me to sleep,
made me sick, made me angry, made me cringe, gave me a headache, ruined my day, ruined everything, ruined the evening,
wore out quickly, died after a month, died within days, won't turn on, won't charge, never worked, never arrived, never came,
never gets going, never comes to life, goes nowhere, leads nowhere, runs out of steam, overstays its welcome, tries too hard,
makes no sense, has no point, has no soul, lacks everything, misses the mark, misses the point, wasn't worth it,
isn't worth it, is not worth the money, is not worth your time, was not worth the wait, could have been better,
should have been better, could be better, leaves much to be desired, left a bad taste in my mouth, is a step below the rest,
insults your intelligence, wears thin, grows tiresome, gets old fast, crashes constantly, freezes all the time, keeps crashing,
drops calls, overheats, leaks, cracked, scratches easily, ripped, tore, shrank, faded, peeled off, came broken,
arrived damaged, arrived late, came late, smelled bad, tastes terrible, tastes like cardboard, looks cheap, feels cheap,
sounds awful, doesn't fit, doesn't hold a charge, drains the battery, was out of order, was falling apart, was a wreck,
cost too much, costs way too much, takes forever, took forever, took ages, tests your patience, tried my patience
""")

GOOD_LINES = lines("""
highly recommended; I would recommend it to anyone; I would recommend this to a friend; I can't recommend it enough; two thumbs up;
five stars; 5 stars; ten out of ten; 10/10; A+; I will definitely be back; we will be back; can't wait to go back; we'll be going again;
I would buy it again; I'd buy another one; buy it, you won't regret it; you won't be disappointed; do yourself a favor and see it;
don't miss it; don't miss this one; not to be missed; go see it; a must for any fan; what more could you ask for; worth every penny;
money well spent; worth a look; worth seeing twice; I could watch it over and over; I've seen it three times already;
I have watched it many times and never get tired of it; one of my favorites; my new favorite; one of the best of the year; the best of its kind;
best purchase I have made; best meal I ever had; best phone I've had; simply the best; I was pleasantly surprised; we left happy;
I had a smile on my face the whole time; I laughed until I cried; I cried at the end in the best way; I stayed up all night reading;
I couldn't stop reading; I wish there were more like it; I wish it were longer; I wanted more; no complaints; no complaints here; no problems at all;
no problems so far; never had a problem with it; I have no regrets; nothing to complain about; nothing bad to say about it;
there is nothing not to like; what's not to love; you can't go wrong; you can't go wrong with it; you can't beat the price;
it does what it is supposed to do; so far so good; I am very impressed; I am so glad I found this place; thank you; thanks to the whole team;
keep up the good work; they went out of their way to help us; they made us feel at home; everything was perfect;
everything we ordered was fresh; we all enjoyed it; the kids loved it; my kids love it; my wife loves it; the whole family enjoyed it;
a feast for the senses; it made me want to dance; it restored my faith in movies; it is still going strong after two years;
still works like new; it looks as good as it sounds; better than the original; better than I expected; far better than the last one;
it gets better each time; a great way to spend an evening; time flew by; I was hooked from the first page; I was hooked; it had me from the start;
it won my heart; I tip my hat to the director; bravo; hats off to the chef; it deserves an award; deserves every prize it gets;
an absolute must; definitely worth checking out; give it a try; I look forward to the next one; I can't wait for the sequel;
I'm a fan; count me a fan; sign me up; yum; wow; love it; loved it; great job; well done; good stuff; nice work; a pleasure from start to finish
""")

BAD_LINES = lines("""
not recommended; I would not recommend it to anyone; I wouldn't recommend this to my worst enemy; I can't recommend it; do not buy this; don't buy it;
don't bother; don't waste your time; don't waste your money; save your money; save your time and skip it; stay away; stay far away; avoid;
avoid at all costs; avoid like the plague; skip it; skip this one; give it a miss; keep walking; buyer beware; two thumbs down; one star; zero stars; 1 star;
zero out of ten; 1/10; I would give it no stars if I could; I will never go back; we won't be back; never again; I will not be returning;
I won't be buying from them again; I will never buy this brand again; I want my money back; I want a refund; I asked for a refund;
I want those two hours of my life back; two hours I will never get back; what a waste; a waste of two hours; a total waste of money; money down the drain;
not worth it; not worth the price; not worth the trouble; not worth a second look; not even worth renting; not worth the paper it is printed on;
I had higher hopes; I expected better; I expected more; I expected so much more; it should have been so much better; it could have been great;
I was really looking forward to it and it let me down; I don't see what the fuss is about; I don't get the hype; I don't understand the good reviews;
I couldn't care less about anyone in it; I didn't care what happened; who cares; why bother; nobody cares; what were they thinking; what was the point;
where is the plot; I fell asleep; I fell asleep halfway through; I walked out after half an hour; I turned it off after ten minutes; I looked at my watch the whole time;
I kept checking my watch; I couldn't wait for it to end; I couldn't wait to leave; it felt like it would never end; I gave up after fifty pages;
I had to force myself to finish; I have seen better; I have had better from a vending machine; I've seen better acting in a school play;
my dog could write a better script; worse than the original; worse than I feared; even worse than the first one; it gets worse; it only got worse from there;
the worst of its kind; the worst I've ever seen; the worst movie of the year; worst purchase ever; worst meal of my life; worst service ever; they should be ashamed;
shame on them; we waited an hour and nobody came; we waited over an hour for our food; nobody answered the phone; no one answered my emails; they never called me back;
customer service was no help; they refused to help; they refused to give me my money back; I had to send it back; I sent it back; it went straight in the trash;
into the bin it goes; I threw it out; I found a hair in my food; I got food poisoning; we left hungry; we left before dessert; it made everyone sick;
nothing works; nothing about it works; nothing happens; nothing makes sense; there is nothing here to like; there is no reason to see it;
there is no excuse for this; not a single laugh; I didn't laugh once; not funny; no plot, no point; no sense at all; never worked right; it never worked;
it lasted two days; it lasted a week; it broke the first time I used it; it died after a month; it came with pieces missing; it was missing parts;
it arrived broken; it was the wrong size; the battery is dead within an hour; I can't hear a thing; nobody can hear me; I have to charge it all the time; I'm not happy;
not impressed; I am not impressed; I was not impressed; I'm very disappointed; what a letdown; what a shame; too bad; yuck; ugh; meh; hated it; no thanks; no thank you;
too little, too late; too long by half; an hour too long; all style and no substance; all flash and no heart; more of the same old thing; we've seen it all before;
it's been done before and better; you've been warned; they just don't care; I feel cheated; I feel ripped off; I regret buying it; I should have read the reviews first
""")

WELL = words("""
well, beautifully, brilliantly, wonderfully, superbly, skillfully, perfectly, masterfully, cleverly, elegantly, expertly,
nicely, flawlessly, gracefully, convincingly, lovingly, carefully, smoothly, admirably, magnificently, thoughtfully
""")
BADLY = words("""
badly, poorly, terribly, horribly, awfully, clumsily, sloppily, carelessly, lazily, miserably, dreadfully, ineptly,
awkwardly, amateurishly, unconvincingly, pathetically, hastily, cheaply, atrociously, incompetently
""")
MADE = words("""
written, made, acted, directed, filmed, shot, edited, performed, told, designed, built, produced, cast, paced, crafted,
executed, prepared, cooked, served, presented, organized, managed, put together, thought out, packaged, staged, played
""")

THINGS = {
    "film": words("""
movie, film, story, plot, script, acting, cast, direction, dialogue, ending, soundtrack, score, picture, comedy, drama, thriller,
documentary, sequel, remake, performance, screenplay, cinematography, show, series, episode, humor, pacing, action, romance, animation,
premise, opening, first half, second half, lead actor, leading lady, director, villain, hero, main character, camera work, editing,
romantic comedy, horror movie, action movie, love story, adaptation, production, special effects budget, play, musical, song, album, video
"""),
    "book": words("""
book, novel, story, writing, prose, plot, ending, author, writer, chapter, style, translation, tale, first chapter, narrator, memoir,
biography, collection, poem, mystery, reader, hardcover, edition, cookbook, textbook
"""),
    "product": words("""
phone, headset, camera, battery, screen, charger, case, laptop, keyboard, product, item, device, speaker, cable, sound, sound quality,
picture quality, reception, volume, design, build quality, software, app, update, game, mouse, printer, vacuum, blender, jacket, shirt,
dress, pair of shoes, watch, bag, mattress, chair, lamp, toy, bluetooth, headphone, microphone, signal, price, purchase, quality, fit,
color, material, packaging, leather, button, plug, cord, tool, kit, unit, model, brand, warranty, instruction manual, kettle, oven
"""),
    "food": words("""
food, meal, restaurant, dinner, lunch, breakfast, pizza, burger, chicken, steak, salad, soup, pasta, fish, sushi, rice, bread, dessert,
cake, pie, ice cream, coffee, tea, wine, beer, sauce, menu, place, buffet, sandwich, cheese, bacon, egg, potato, dish, taste, flavor,
portion, chef, kitchen, cafe, bar, atmosphere, decor, patio, taco, curry, shrimp, lobster, beef, pork, toast, bakery, spot, selection
"""),
    "service": words("""
service, staff, waiter, waitress, server, manager, hotel, room, bed, bathroom, shower, pool, location, view, lobby, front desk, company,
delivery, shipping, customer service, support, experience, visit, stay, trip, flight, airline, tour, doctor, dentist, mechanic, shop,
store, salon, haircut, gym, class, teacher, owner, host, seller, website, wait, line, parking, beach, city, museum, park, concert
"""),
}  # fmt: skip
MANY = words("""
characters, actors, performances, jokes, special effects, songs, visuals, scenes, actors and actresses, writers, chapters, pictures,
buttons, headphones, batteries, speakers, shoes, earbuds, features, controls, fries, vegetables, drinks, prices, portions, desserts, waiters,
employees, rooms, towels, people, owners, beds, instructions, graphics, lyrics, costumes, sets, locations, twists, villains, servers, tacos
""")

VERY = words("""
very, really, so, extremely, incredibly, quite, pretty, absolutely, totally, truly, just, simply, completely, surprisingly, thoroughly, rather,
utterly, particularly, especially, genuinely, amazingly, super, fairly, insanely, always, consistently, undeniably, wildly, deeply, just plain
""")
WHO = words("""
I, we, my wife and I, my husband and I, my friends and I, the whole family, my kids, everyone, my mother, my sister, my son, most people
""")
ASIDES = lines("""
in my opinion; to be honest; honestly; for me; I think; I must say; if you ask me; overall; all in all; in the end; frankly; I have to say; as far as I'm concerned;
after all; at least; of course; as usual; once again; sadly enough for the others; to my surprise; in short; basically; by the way; for the price; for what it is;
at first glance; on the whole; needless to say; no doubt about it; as always; from beginning to end; from start to finish; in every way; at this price
""")
SETTINGS = lines("""
I bought this for my son; we went there on a Friday night; I saw it with my sister last week; I ordered it two weeks ago; we stopped in for lunch; I read it on the train;
my friend told me about it; I got this as a gift; we stayed for three nights; I watched it on television; I have had it for a month; it came on Tuesday; I own the black one;
it is about a man who loses his job; it is set in Paris in the 1920s; it follows two brothers on the road; the film runs for two hours; it stars a young actress; I've read all his books;
I used it every day for a year; this was our second visit; we had a table by the window; I ordered the chicken and my wife had the fish; there were six of us; it came with a cable and a manual;
it was directed by a newcomer; the story begins in a small town; I tried it at home and in the car; I read the book first; I have a similar one at work; the place is next to the station; I tried the soup
""")

# What happens without a telling word.

GOOD_STARTS = words(
    "luckily, thankfully, fortunately, happily, best of all, even better, to my delight, pleasantly enough, amazingly, yes"
)
BAD_STARTS = words(
    "unfortunately, sadly, regrettably, alas, worst of all, even worse, to my dismay, disappointingly, annoyingly, no"
)
ABLE = words("""
work, fit, charge, open, close, connect, stay on, last, turn on, hold up, start, play, run, load, sync, pair, stick, stay in place, go together,
come with what you need, do what it says, do its job, match the picture, look like the photo, keep its shape, hold water, fold flat, hear me, hear them,
keep my attention, hold my interest, make sense, add up, come together, go anywhere, come alive, stand up to daily use, answer the phone, answer my questions,
take our order, bring our drinks, remember us, listen, care, help, explain anything, deliver, arrive on time, show up, call back, make me laugh, make us smile,
surprise me, move me, build tension, pay off, develop the characters, tell a story, say anything new, capture the mood, live up to the hype,
live up to its name, live up to the original, meet my expectations, meet our needs, taste like anything, taste fresh, fill us up, get the details right,
find its audience, hit its marks, earn its ending, keep the pace, keep me warm, keep food hot, clean well, cut well, sound right, feel right, ring true
""")
"""Things that should happen: praise when they do, blame when they do not."""
GOOD_ACTS = words("""
gave us a free dessert, gave me a full refund, fixed it while I waited, went the extra mile, greeted us with a smile, treated us like family, treated us like royalty,
took the time to explain everything, answered every question, checked on us often, upgraded our room, replaced it at no charge, came right away, made it right,
made up for the wait, made up for everything, brings me back, brought me to tears, had me in stitches, had me in tears, had us laughing out loud, gave me goosebumps,
changed my life, saved my life, broke my heart, won us over, stayed with me for days, held my attention to the end, trusts its audience, surprises at every turn,
rewards a second viewing, rises above its genre, sets the bar high, raises the bar, keeps getting better, leaves you wanting more, leaves you smiling,
makes everyday life easier, makes the whole thing worth seeing, has lasted for years, has held up for years, has never let me down, has worked without a hitch,
still works after all these years, outlasted all the others, gets me through the day, lasts all day, lights up the screen, carries the film, melts in your mouth,
fits like a glove, does wonders, is a dream to use, is all I need, is everything I wanted, is just what I was looking for, is exactly what we needed, was just right,
was cooked just right, was done to perfection, was out of this world, was to die for, knows what it is doing, knows how to tell a story, will make you laugh and cry
""")
BAD_ACTS = words("""
ignored us, ignored my emails, kept us waiting, forgot our order, forgot about us, brought the wrong food, got our order wrong, overcharged us, charged me twice, refused to help,
refused a refund, rolled her eyes, shrugged, argued with us, blamed me, hung up on me, yelled at us, lied to us, lost our booking, lost my luggage, talked down to us,
took an hour, took forty minutes to arrive, gave us food poisoning, gave me a rash, made me want to leave, made us feel unwelcome, had me checking my watch, had me reaching for the remote,
bored me to tears, tried my patience, wasted a good cast, wastes its talent, wastes a good idea, drowns in its own cleverness, runs on far too long, never gets off the ground, never finds its feet,
never pays off, never takes off, collapses under its own weight, falls apart in the second half, loses its way, loses steam, recycles old ideas, has nothing to say, has nothing going on,
has more holes than cheese, can't decide what it wants to be, doesn't know what it wants to be, mumbles through every scene, sleepwalks through the part, phones it in, overacts,
feels like homework, feels like an eternity, feels like a cheap copy, feels like it was made in a hurry, reads like a first draft, reads like a phone book, looks like it was shot on a phone,
looks nothing like the picture, looks like a cheap knockoff, sounds like a tin can, sounds like it is underwater, smells like chemicals, smells like an ashtray, smelled like smoke, smelled like wet dog,
tastes like soap, tastes like nothing, tasted like it came from a can, was still frozen in the middle, was still pink inside, was swimming in grease, was dry as dust, was ice cold,
was hard as a rock, came apart in my hands, came apart at the seams, came with a crack in it, gave out after a month, gave out on the third day, stopped charging, stopped responding,
loses its charge, loses the connection, cuts out every few minutes, keeps cutting out, keeps falling off, keeps turning itself off, will not stay on, hurts my ears, hurt my feet, hurts after ten minutes,
scratched the first day, ripped in the wash, shrank in the wash, lost its color, needs to be replaced already, is going back, is going straight back to the store, is collecting dust in a drawer, is only good for the trash
""")
NEUTRAL = words("""
computer, weekend, audience, role, scene, actress, actor, driver, twist, minute, hour, page, theater, cinema, studio, budget, camera, trailer, critic, screen, plane, airport, car, bus, subway,
office, desk, garage, kitchen, balcony, elevator, apartment, neighborhood, corner, street, downtown, mall, counter, cashier, checkout, receipt, order, menu, table, plate, glass, cup, bowl, fork,
knife, bottle, box, package, label, manual, website, internet, email, phone call, text message, account, password, card, cash, dollar, dollars, cents, percent, size, inch, pound, gallon, color, black, white,
red, blue, green, gray, plastic, metal, wood, cotton, rubber, glass, leather, zipper, pocket, strap, handle, lid, switch, wire, plug, outlet, cable, adapter, ear, ears, hand, hands, head, neck, foot,
shoulder, back, skin, hair, face, kids, kid, baby, husband, wife, son, daughter, mom, dad, parents, friend, friends, coworkers, neighbor, guest, guests, customer, customers, people, crowd, man, woman, guy, girl,
boy, dog, cat, goldfish, raccoon, horse, teenager, student, teacher, doctor, dentist, lawyer, detective, cop, soldier, robot, alien, vampire, zombie, monster, ghost, war, murder mystery, wedding, funeral, birthday,
anniversary, christmas, summer, winter, morning, evening, night, monday, saturday, tuesday, april, october, year, decade, eighties, nineties, century, history, city, town, village, country, america, england, japan,
french, italian, mexican, chinese, indian, thai, american, english, german, noodles, ramen, dumplings, tacos, muffin, bagel, pancake, waffle, sausage, tomato, onion, garlic, pepper, butter, cream, milk, juice, soda,
water, ice, cocktail, appetizer, entree, side dish, lunch special, brunch, takeout, delivery, tip, bill, price tag, line, parking lot, lobby, hallway, carpet, curtain, pillow, sheet, towel, shampoo, sink,
toilet, mirror, window, wall, ceiling, floor, heater, fan, air conditioner, refrigerator, microwave, toaster, mop, broom, vacuum cleaner, washer, dryer, hammer, drill, screw, screws, ladder, garden, lawn, bike, tire,
engine, brake, seat, mile, gas, road, map, gps, signal, network, wifi, bluetooth, usb, laptop, tablet, television, remote, channel, station, radio, speaker, earpiece, ringtone, voicemail, contact, contract, plan,
chapter, paragraph, sentence, word, title, cover, credits, opening shot, sequel, prequel, trilogy, franchise, genre, western, science fiction, fantasy, drama, script, stage, costume, makeup, music, song, dance, band,
guitar, piano, lyrics, voice, accent, language, subtitle, translation, version, original, copy, brand, company, store, shop, warehouse, truck, mail, stamp, letter, form, ticket, seat number, row, level, player, controller,
subject, theme, message, idea, point of view, relationship, marriage, divorce, childhood, career, job, boss, money, power, politics, religion, science, nature, animal, tree, river, ocean, mountain, island, desert, space
""")
"""Words that reviews are full of and that say nothing for or against."""

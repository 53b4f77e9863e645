"""Prompts from templates, and rows of real text, as tokens. usage: prompts.py tokenizer.json OUT.npz TEXT...
TEXT: English prose, one file a document, paragraphs between blank lines; one in 25 is held out."""
import random
import re
import sys

import numpy as np
from tokenizers import Tokenizer

LENGTH, N_QUESTIONS, N_STARTS, N_TEXTS = 768, 60000, 36000, 16000
SYSTEM = ["You are a helpful AI assistant named SmolLM, trained by Hugging Face"] * 8 + [
    "You are a helpful assistant.", "You are a friendly chatbot.", "You are a concise assistant. Answer briefly.",
    "You are a helpful coding assistant.", "You are a knowledgeable teacher.", "You are an AI writing assistant."]


def words(text):
    return [w.strip() for w in text.split(",")]


COUNTRIES = words("France, Germany, Italy, Spain, Norway, Poland, Greece, Turkey, Japan, China, India, Vietnam, Thailand, "
                  "Indonesia, Israel, Egypt, Morocco, Nigeria, Kenya, Ethiopia, South Africa, Canada, the United States, "
                  "Mexico, Cuba, Brazil, Argentina, Chile, Peru, Australia, New Zealand, Nepal, Mongolia, Singapore")
ANIMALS = words("dog, cat, elephant, lion, bear, wolf, fox, rabbit, horse, cow, eagle, owl, penguin, dolphin, whale, shark, "
                "octopus, turtle, snake, frog, bee, ant, butterfly, spider, monkey, giraffe, kangaroo, panda, parrot")
TOPICS = words("gravity, photosynthesis, evolution, DNA, the water cycle, black holes, electricity, atoms, bacteria, vaccines, "
               "the human heart, the brain, the solar system, the moon, climate change, volcanoes, earthquakes, entropy, "
               "quantum mechanics, light, sound, friction, tides, weather, rainbows, rockets, batteries, machine learning, "
               "neural networks, the internet, a database, recursion, a hash table, encryption, a compiler, a GPU, "
               "probability, prime numbers, fractions, calculus, the Roman Empire, World War II, the French Revolution, "
               "the Renaissance, the Industrial Revolution, ancient Egypt, the Silk Road, the moon landing, democracy, "
               "healthy eating, sleep, meditation, saving money, gardening, hiking, chess, photography, coffee, birthday "
               "parties, public transport, learning a new language, reading books, job interviews, friendship")
PEOPLE = words("Albert Einstein, Isaac Newton, Marie Curie, Charles Darwin, Leonardo da Vinci, William Shakespeare, Jane "
               "Austen, Mark Twain, Wolfgang Amadeus Mozart, Vincent van Gogh, Mahatma Gandhi, Nelson Mandela, Abraham "
               "Lincoln, Cleopatra, Socrates, Aristotle, Alan Turing, Ada Lovelace, Nikola Tesla, Rosa Parks")
HEROES = words("a brave knight, a lonely robot, a curious cat, a young girl named Lily, an old fisherman, a dragon, a "
               "detective, a time traveler, an astronaut, a talking tree, a pirate, a lost puppy, a clever fox, a ghost")
LANGUAGES = words("Python, JavaScript, C, C++, Java, Rust, Go")
TASKS = words("reverse a string, check if a number is prime, compute a factorial, print the Fibonacci sequence, sort a list, "
              "find the maximum in a list, count the vowels in a string, read a file line by line, remove duplicates from a "
              "list, convert Celsius to Fahrenheit, implement binary search, implement a stack, print hello world")
LETTERS = words("asking my boss for a day off, thanking a colleague, inviting friends to a party, applying for a job, "
                "complaining about a late delivery, rescheduling a meeting, apologizing for a mistake, asking for feedback")
SENTENCES = words("The cat sat on the mat, She don't like apples, The weather is nice today, Their going to the park, "
                  "This movie was really boring, It is raining outside, The meeting has been moved to Monday")
GREETINGS = words("Hello!, Hi, Who are you?, What can you do?, Thank you!, Tell me a joke., Good morning!, Can you help me?, "
                  "I need some advice., Give me a random fact., What is the meaning of life?, Goodbye")


def number(low, high):
    return str(random.randint(low, high))


# weight, templates; {X} is drawn anew from the list of that name.
TEMPLATES = [
    (6, ["What is the capital of {COUNTRIES}?", "What language do people speak in {COUNTRIES}?", "What is {COUNTRIES} known for?"]),
    (8, ["What is {TOPICS}?", "Explain {TOPICS} in simple terms.", "Explain {TOPICS} to a five-year-old.",
         "Describe {TOPICS} in two or three sentences.", "Why is {TOPICS} important?", "Tell me about {TOPICS}."]),
    (3, ["Who was {PEOPLE}?", "What is {PEOPLE} famous for?", "Tell me three facts about {PEOPLE}."]),
    (5, ["Write a short story about {HEROES}.", "Write a short poem about {TOPICS}.", "Write a dialogue between {HEROES} and {HEROES}.",
         "Write a haiku about a {ANIMALS}."]),
    (3, ["Write an email {LETTERS}.", "Write a short message {LETTERS}."]),
    (4, ["List five facts about {TOPICS}.", "Give me three tips for {TOPICS}.", "What are the pros and cons of {TOPICS}?"]),
    (4, ["What is {N2} + {N2}?", "What is {N2} - {N1}?", "What is {N1} times {N1}?", "Is {N2} a prime number?"]),
    (4, ["Write a {LANGUAGES} function to {TASKS}.", "How do I {TASKS} in {LANGUAGES}?", "Explain how to {TASKS}."]),
    (3, ["Correct the grammar: {SENTENCES}.", "Make this sentence more formal: {SENTENCES}.", "Translate to French: {SENTENCES}."]),
    (3, ["What do {ANIMALS}s eat?", "Tell me a fun fact about the {ANIMALS}.", "What is the difference between a {ANIMALS} and a {ANIMALS}?"]),
    (2, ["{GREETINGS}"]),
]
STARTS = ["", "", "What", "How", "Why", "Can you", "Write", "Explain", "Tell me", "I", "Give me", "Who", "Is", "List", "The", "My"]


def question():
    template = random.choice(random.choices([t for _, t in TEMPLATES], [w for w, _ in TEMPLATES])[0])
    draw = {"N1": lambda: number(2, 12), "N2": lambda: number(10, 99)}
    return re.sub(r"\{(\w+)\}", lambda m: draw[m[1]]() if m[1] in draw else random.choice(globals()[m[1]]), template)


def turn(user, answer):
    text = f"<|im_start|>system\n{random.choice(SYSTEM)}<|im_end|>\n<|im_start|>user\n{user}"
    return text + ("<|im_end|>\n<|im_start|>assistant\n" if answer else "")


def real_rows(encode, paths):
    """Rows of LENGTH tokens of prose: lines are joined, paragraphs that are mostly no words dropped."""
    rows, held_out = [], []
    for i, path in enumerate(paths):
        paragraphs = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", open(path, encoding="utf8", errors="ignore").read())]
        ids = encode("\n\n".join(p for p in paragraphs if len(p) > 60 and sum(c.isalpha() or c == " " for c in p) > 0.85 * len(p)))
        (held_out if i % 25 == 0 else rows).extend(ids[a:a + LENGTH] for a in range(0, len(ids) - LENGTH + 1, LENGTH))
    return rows[:8000], held_out[:32]


def main():
    random.seed(7)
    tokenizer = Tokenizer.from_file(sys.argv[1])
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    rows, held_out = real_rows(encode, sys.argv[3:])
    prompts = []  # tokens; is it a chat; role being written (0 user, 1 assistant); kind
    for _ in range(N_QUESTIONS):
        prompts.append((encode(turn(question(), True)), 1, 1, 0))
    for _ in range(N_STARTS):  # the model writes the question too
        prompts.append((encode(turn(random.choice(STARTS), False)), 1, 0, 1))
    for _ in range(N_TEXTS):  # plain text: after some words of prose, or after a heading
        real = random.choice(rows)[:random.randint(4, 32)] if rows and random.random() < 0.4 else None
        prompts.append((real or encode(random.choice(["# ", "The ", "In ", "How to ", ""]) + random.choice(TOPICS)), 0, 0, 2))
    tokens, chat, role, kind = zip(*prompts)
    np.savez_compressed(
        sys.argv[2], tokens=np.concatenate([np.array(t, np.uint16) for t in tokens]),
        offsets=np.cumsum([0] + [len(t) for t in tokens]), chat=np.array(chat, np.uint8), role=np.array(role, np.uint8),
        kind=np.array(kind, np.uint8), real=np.array(rows, np.uint16).reshape(-1, LENGTH),
        real_held_out=np.array(held_out, np.uint16).reshape(-1, LENGTH),
        header_assistant=np.array(encode("\n<|im_start|>assistant\n")), header_user=np.array(encode("\n<|im_start|>user\n")))
    print(len(prompts), "prompts,", len(rows), "rows of text,", len(held_out), "held out")


if __name__ == "__main__":
    main()

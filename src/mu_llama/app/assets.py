"""What the page hands to the visitor's browser: its style and two small scripts."""

CSS = """
.gradio-container {max-width: 1200px !important; margin: 0 auto !important}
footer {display: none !important}
#room {display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); grid-template-rows: auto 1fr;
  grid-template-areas: "track talk" "heard talk"}
#track-side {grid-area: track} #talk-side {grid-area: talk} #heard-side {grid-area: heard}
#heard {font-size: 0.9em}
#picture img {image-rendering: auto; object-fit: fill; width: 100%}
@media (max-width: 768px) {#room {grid-template-columns: minmax(0, 1fr); grid-template-rows: auto;
  grid-template-areas: "track" "talk" "heard"}}
@media (max-width: 640px) {.gradio-container {padding: 8px !important} #chat {height: 50vh !important}}
"""

EMPTY_THE_BOX = """
(...values) => {
  const box = document.querySelector('#question textarea');
  box.value = '';
  box.dispatchEvent(new Event('input', {bubbles: true}));
  return values;
}
"""
"""Runs before a question is sent: the box is free for the next one while this one may wait in the queue."""

_PLAIN_TOASTS = """
() => {
  const told = [
    [/^Invalid file type: (.*)\\. Only .*/s, name => `${name} is no audio file; give a WAV, MP3, FLAC or the like.`],
    [/^File\\(s\\) exceed the maximum.*: "(.*)"/s, name => `${name} has more than MOST MB; cut or compress it.`],
  ];
  new MutationObserver(() => document.querySelectorAll('[data-testid=toast-text]').forEach(toast => {
    for (const [pattern, plain] of told) {
      const found = toast.textContent.match(pattern);
      if (found) toast.textContent = plain(found[1]);
    }
  })).observe(document.body, {childList: true, subtree: true});
}
"""


def plain_toasts(most_mb: int) -> str:
    """A script that says in a sentence, with what to do, why gradio's own upload refused a file.

    Args:
        most_mb: size of the largest file, in megabytes.
    """
    return _PLAIN_TOASTS.replace("MOST", str(most_mb))

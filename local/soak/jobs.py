"""What the soak's customers ask for."""

import random
from typing import Any, Final

CHARACTERS: Final = tuple(f"soak-{number}" for number in range(16))
PHOTOS: Final = tuple(f"inputs/soak/{number}.jpg" for number in range(6))
LORA: Final = "inputs/soak/lora.safetensors"
TIMEOUT_S: Final = 20
FROM_A_PICTURE: Final = 0.2


class JobMaker:
    """Draws jobs; the same ones in the same order for a seed.

    Args:
        seed: of everything drawn.
    """

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._number = 0

    def draw(self) -> dict[str, Any]:
        """One job's input; most are pictures, few are trainings."""
        self._number += 1
        kinds = (self._image, self._video, self._train, self._characters, self._health)
        return self._dice.choices(kinds, weights=(60, 8, 4, 24, 4))[0]()

    def _image(self) -> dict[str, Any]:
        dice = self._dice
        job = {
            "task": "image",
            "prompt": "portrait of {trigger}, evening light",
            "width": dice.choice((256, 512)),
            "height": dice.choice((256, 512)),
            "steps": dice.randint(1, 6),
            "count": dice.choice((1, 1, 1, 2)),
            "format": dice.choice(("png", "jpeg", "webp")),
            "timeout_s": TIMEOUT_S,
        }
        if dice.random() < FROM_A_PICTURE:
            return job | {"init_image": {"key": PHOTOS[0]}, "denoise": 0.6}
        cast = dice.sample(CHARACTERS, dice.choice((1, 1, 1, 2, 4)))
        return job | {"characters": [{"character_id": each} for each in cast]}

    def _video(self) -> dict[str, Any]:
        job = {"task": "video", "frames": 6, "fps": 6, "steps": 2, "timeout_s": TIMEOUT_S}
        size = {"width": 256, "height": 256}
        return job | size | {"image": {"key": self._dice.choice(PHOTOS)}}

    def _train(self) -> dict[str, Any]:
        return {
            "task": "train",
            "character_id": f"trained-{self._dice.randint(0, 3)}",
            "images": [{"key": key} for key in PHOTOS],
            "steps": 20,
            "rank": 1,
            "resolution": 512,
            "preview_prompts": ["{trigger} on a hill"],
            "timeout_s": 60,
        }

    def _characters(self) -> dict[str, Any]:
        dice, character_id = self._dice, self._dice.choice(CHARACTERS)
        base = {"task": "characters"}
        actions: tuple[dict[str, Any], ...] = (
            {"action": "list", "limit": 20, "order": dice.choice(("id", "newest"))},
            {"action": "get", "character_id": character_id},
            {
                "action": "register",
                "character_id": f"registered-{dice.randint(0, 5)}",
                "source": {"key": LORA},
                "trigger": "ohwx",
            },
        )
        return base | dice.choice(actions)

    def _health(self) -> dict[str, Any]:
        return {"task": "health"}

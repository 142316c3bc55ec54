"""The frames of tests/vectors: the tracer produces exactly these bytes, and they are read back to the same values."""
import unittest

import support  # noqa: F401 - finds the package
import frames
import vectors
from whatap import wire


class Vectors(unittest.TestCase):
    def test_the_encoder_produces_every_vector(self):
        for name, frame, data in vectors.read():
            self.assertEqual(vectors.encode(wire, frame), data, name)

    def test_every_vector_is_read_back(self):
        for name, frame, data in vectors.read():
            self.assertEqual(frames.decode(data, frame['position']), frame, name)

    def test_the_file_is_what_the_generator_writes(self):
        self.assertEqual([(name, frame) for name, frame, _ in vectors.read()], [(n, f) for n, f in vectors.vectors()])

    def test_a_frame_of_another_position_is_refused(self):
        _, frame, data = next(iter(vectors.read()))
        self.assertRaises(frames.Bad, frames.decode, data, frame['position'] + 262144)

    def test_any_damaged_byte_is_noticed(self):
        _, frame, data = list(vectors.read())[1]
        for at in range(len(data)):
            damaged = bytearray(data)
            damaged[at] ^= 0x10
            self.assertRaises(frames.Bad, frames.decode, bytes(damaged), frame['position'])


if __name__ == '__main__':
    unittest.main()

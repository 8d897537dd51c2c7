//! Draws from a seed: the same ones each time.

/// A generator (Marsaglia, "Xorshift RNGs", 2003).
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// Draws that `seed` decides.
    pub fn new(seed: u64) -> Draws {
        Draws(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`. Bounds are tiny: the bias of a remainder is too.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// An index into so many; 0 of none.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len.max(1) as u64) as usize
    }
}

impl Default for Draws {
    fn default() -> Self {
        Draws::new(0)
    }
}

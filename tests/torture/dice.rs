//! A seed → numbers. The same seed rolls the same life; only time is not in it.

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed, apart from those of other words.
    pub fn new(seed: u64, word: &str) -> Self {
        let mut dice = Self(seed);
        for byte in word.bytes() {
            dice.0 = dice.0.wrapping_add(u64::from(byte));
            dice.next();
        }
        dice
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range, the end not among them.
    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    /// A count of a range, the end not among them.
    pub fn count(&mut self, from: usize, to: usize) -> usize {
        usize::try_from(self.range(from as u64, to as u64)).unwrap()
    }

    /// True in so many of a hundred cases.
    pub fn in_hundred(&mut self, cases: u64) -> bool {
        self.range(0, 100) < cases
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.count(0, of.len())])
    }

    /// One of them, each as often as it says.
    pub fn weighted<T: Copy>(&mut self, of: &[(T, u64)]) -> T {
        let mut left = self.range(0, of.iter().map(|(_, weight)| weight).sum());
        for (value, weight) in of {
            if left < *weight {
                return *value;
            }
            left -= weight;
        }
        unreachable!()
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Waits as long as it rolls, in milliseconds.
    pub fn wait(&mut self, from: u64, to: u64) {
        std::thread::sleep(std::time::Duration::from_millis(self.range(from, to)));
    }
}

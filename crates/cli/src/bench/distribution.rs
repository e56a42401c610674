//! Which document an operation picks: the request distributions of YCSB.
//!
//! After "Benchmarking Cloud Serving Systems with YCSB" (2010) and the rejection-free zipfian generator of Gray et
//! al. (1994) that it uses. Each client has its own generator; randomness comes in from outside.

use rand::Rng;

/// YCSB's skew.
const THETA: f64 = 0.99;
/// Items over which the scrambled zipfian is drawn before it is hashed onto the documents, and their zeta(0.99).
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;

/// A distribution over the documents 0..n.
#[derive(Clone, Debug)]
pub(super) enum Distribution {
    /// Every document alike.
    Uniform,
    /// A few documents are hot, spread over the whole collection.
    Zipfian(Zipfian),
    /// The newest documents are hot.
    Latest(Zipfian),
}

impl Distribution {
    /// YCSB's zipfian: popularity falls with rank, and ranks are scattered by a hash.
    pub(super) fn zipfian() -> Distribution {
        Distribution::Zipfian(Zipfian::with_zeta(SCRAMBLED_ITEMS, SCRAMBLED_ZETA))
    }

    /// Zipfian over age, for a collection of `documents`.
    pub(super) fn latest(documents: u64) -> Distribution {
        Distribution::Latest(Zipfian::with_zeta(documents, zeta(0, documents.max(1))))
    }

    /// The next document to ask for; `documents` is their present number, at least 1.
    pub(super) fn next(&mut self, documents: u64, random: &mut impl Rng) -> u64 {
        match self {
            Distribution::Uniform => random.random_range(0..documents),
            Distribution::Zipfian(zipfian) => fnv(zipfian.next(random)) % documents,
            Distribution::Latest(zipfian) => {
                zipfian.grow(documents);
                documents - 1 - zipfian.next(random).min(documents - 1)
            }
        }
    }
}

/// Ranks 0, 1, 2, ... with probability falling as 1 / rank^theta.
#[derive(Clone, Debug)]
pub(super) struct Zipfian {
    items: u64,
    zeta_items: f64,
    eta: f64,
}

impl Zipfian {
    fn with_zeta(items: u64, zeta_items: f64) -> Zipfian {
        let mut zipfian = Zipfian { items: items.max(1), zeta_items, eta: 0.0 };
        zipfian.set_eta();
        zipfian
    }

    /// Goes on with more items, at the cost of only the new ones.
    fn grow(&mut self, items: u64) {
        if items > self.items {
            self.zeta_items += zeta(self.items, items);
            self.items = items;
            self.set_eta();
        }
    }

    fn set_eta(&mut self) {
        let ratio = 2.0 / self.items as f64;
        self.eta = (1.0 - ratio.powf(1.0 - THETA)) / (1.0 - zeta(0, 2) / self.zeta_items);
    }

    fn next(&self, random: &mut impl Rng) -> u64 {
        let uniform: f64 = random.random();
        let scaled = uniform * self.zeta_items;
        if scaled < 1.0 || self.items < 3 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let alpha = 1.0 / (1.0 - THETA);
        let rank = self.items as f64 * (self.eta * uniform - self.eta + 1.0).powf(alpha);
        (rank as u64).min(self.items - 1)
    }
}

/// The sum of 1 / i^theta for the ranks `from` to `to`.
fn zeta(from: u64, to: u64) -> f64 {
    (from..to).map(|rank| 1.0 / ((rank + 1) as f64).powf(THETA)).sum()
}

/// FNV-1a of 64 bits over a number's bytes: scatters ranks and keys as YCSB does.
pub(super) fn fnv(number: u64) -> u64 {
    number
        .to_le_bytes()
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const DOCUMENTS: u64 = 1000;
    const DRAWS: usize = 100_000;

    /// How often each document is drawn, the most popular first.
    fn popularity(mut distribution: Distribution) -> (Vec<usize>, Vec<usize>) {
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0; DOCUMENTS as usize];
        for _ in 0..DRAWS {
            counts[distribution.next(DOCUMENTS, &mut random) as usize] += 1;
        }
        let mut sorted = counts.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        (counts, sorted)
    }

    #[test]
    fn uniform_draws_every_document_about_equally() {
        let (_, sorted) = popularity(Distribution::Uniform);
        assert!(sorted[0] < 170 && sorted[999] > 50, "{} to {}", sorted[0], sorted[999]);
    }

    #[test]
    fn zipfian_draws_the_hottest_document_by_its_share_of_zeta() {
        let (counts, sorted) = popularity(Distribution::zipfian());
        let share = DRAWS as f64 / SCRAMBLED_ZETA;
        assert!((sorted[0] as f64) > share * 0.9 && (sorted[0] as f64) < share * 1.3, "{}", sorted[0]);
        assert!(counts[0] < sorted[0], "the hottest document is scattered, not the first");
    }

    #[test]
    fn latest_draws_the_newest_document_most() {
        let (counts, sorted) = popularity(Distribution::latest(DOCUMENTS));
        assert_eq!(counts[999], sorted[0]);
        assert!(counts[999] > 10 * counts[500]);
    }

    #[test]
    fn growing_a_zipfian_equals_starting_with_as_many_items() {
        let mut grown = Zipfian::with_zeta(10, zeta(0, 10));
        grown.grow(5000);
        let whole = Zipfian::with_zeta(5000, zeta(0, 5000));
        assert!((grown.zeta_items - whole.zeta_items).abs() < 1e-9);
        assert!((grown.eta - whole.eta).abs() < 1e-9);
    }
}

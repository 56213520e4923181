//! The permutation of sixteen states.

use seal_field::Fma;
use seal_field::fma::fr::{Balanced, Fr16, LANES, Start, Sum};

use super::constants::{Constants, Dense, Partial};
use super::filter::Past;

/// Where sixteen states are permuted.
pub(super) struct Room<const WIDTH: usize> {
    state: Box<[Fr16; WIDTH]>,
    /// Where the state goes that a matrix makes of the state.
    next: Box<[Fr16; WIDTH]>,
    work: Work,
    past: Past,
}

/// What steps use meanwhile.
pub(super) struct Work {
    pub(super) proof: Fma,
    sum: Sum,
    power: Fr16,
}

impl Work {
    fn fourth_power(&mut self, element: &Fr16) {
        self.power.set_square(self.proof, element, &mut self.sum);
        self.power.square(self.proof, &mut self.sum);
    }

    /// The S-box: the fifth power, plus a key.
    fn s_box(&mut self, element: &mut Fr16, key: &Start) {
        self.fourth_power(element);
        element.times_plus(self.proof, &self.power, key, &mut self.sum);
    }

    /// The fifth power plus a sum.
    pub(super) fn s_box_plus(&mut self, element: &Fr16, sum: &mut Sum, result: &mut Fr16) {
        self.fourth_power(element);
        sum.add_product(self.proof, &self.power, element);
        sum.reduce(self.proof, result);
    }

    fn substitute(&mut self, elements: &mut [Fr16], keys: &[Start]) {
        for (element, key) in elements.iter_mut().zip(keys) {
            self.s_box(element, key);
        }
    }

    /// The product of a matrix, which is given by rows, and a vector.
    pub(super) fn multiply(
        &mut self,
        matrix: &[Vec<Balanced>],
        vector: &[Fr16],
        product: &mut [Fr16],
    ) {
        let start = Start::new(vector.len() as u32, 0);
        for (row, product) in matrix.iter().zip(product) {
            self.sum.set_products(self.proof, &start, vector, row);
            self.sum.reduce(self.proof, product);
        }
    }
}

impl<const WIDTH: usize> Room<WIDTH> {
    pub(super) fn new(proof: Fma) -> Self {
        let nothing = Box::new([Fr16::ZERO; WIDTH]);
        let work = Work { proof, sum: Sum::EMPTY, power: Fr16::ZERO };
        Self { state: nothing.clone(), next: nothing, work, past: Past::new(WIDTH) }
    }

    /// Hashes preimages, which are given by element and lane. Tells whether all nodes are
    /// canonical; if not, `hashes` is of no use.
    pub(super) fn hash(
        &mut self,
        constants: &Constants,
        preimages: &[[&[u8; 32]; LANES]],
        hashes: &mut [[u8; 32]; LANES],
    ) -> bool {
        self.state[0] = Fr16::same(&constants.first);
        let elements = self.state[1..].iter_mut().zip(preimages);
        for ((element, nodes), key) in elements.zip(&constants.first_key[1..]) {
            let Some(numbers) = Fr16::load_plus(nodes, key) else {
                return false;
            };
            *element = numbers;
        }
        self.work.substitute(&mut self.state[1..], &constants.head[0][1..]);
        for keys in &constants.head[1..] {
            self.small_matrix(constants);
            self.work.substitute(&mut *self.state, keys);
        }
        match &constants.partial {
            Partial::Filter(filter) => self.past.run(&mut self.work, filter, &mut self.state),
            Partial::Dense(rounds) => self.dense(constants, rounds),
        }
        for keys in &constants.tail {
            self.work.substitute(&mut *self.state, keys);
            self.small_matrix(constants);
        }
        self.work.substitute(&mut *self.state, &[NO_KEY; WIDTH]);
        // Of the three rows that are computed together the second one is the hash.
        let Self { state, next, work: Work { proof, sum, .. }, .. } = self;
        Fr16::small_rows(*proof, &**state, &constants.small, &mut next[..3]);
        let hash = &mut next[1];
        hash.times_plus(*proof, &constants.last, &NO_KEY, sum);
        hash.store(hashes);
        true
    }

    /// The small matrix, whose entry `(i, j)` is `small[i + j]`.
    fn small_matrix(&mut self, constants: &Constants) {
        Fr16::small_rows(self.work.proof, &*self.state, &constants.small, &mut *self.next);
        std::mem::swap(&mut self.state, &mut self.next);
    }

    /// The partial rounds with the small matrix, and that of the full round before them.
    fn dense(&mut self, constants: &Constants, rounds: &Dense) {
        self.small_matrix(constants);
        for (rescale, key) in rounds.rescale.iter().zip(&rounds.keys) {
            let (first, work) = (&mut self.state[0], &mut self.work);
            work.s_box(first, &NO_KEY);
            let (one, rescale) = (std::slice::from_ref(first), std::slice::from_ref(rescale));
            work.sum.set_products(work.proof, key, one, rescale);
            work.sum.reduce(work.proof, first);
            self.small_matrix(constants);
        }
    }
}

/// Nothing is added to the product.
const NO_KEY: Start = Start::new(0, 1);

// Poseidon in its lean form (seal-poseidon's module `lean` derives and explains it), one thread a
// hash.
//
// The state lies in shared memory, 16 bytes of every thread side by side, so that all accesses are
// free of bank conflicts and loops over elements need not be unrolled: unrolled by a state in
// registers the code would be ten times as large as the instruction caches. Registers hold what is
// being summed up.
#pragma once

#include "field.cuh"

namespace seal {

static const int FULL_ROUNDS = 8;

// Rounds, integers and layout for a width. The constants are laid out as seal-cuda's `constants.rs`
// writes them.
template <int WIDTH> struct shape;
template <> struct shape<3> {
  static const int PARTIAL_ROUNDS = 55, SMALL_WORDS = 1, ROWS = 3;
  static const bool FILTER = false;
};
template <> struct shape<9> {
  static const int PARTIAL_ROUNDS = 57, SMALL_WORDS = 1, ROWS = 3;
  static const bool FILTER = false;
};
template <> struct shape<12> {
  static const int PARTIAL_ROUNDS = 57, SMALL_WORDS = 2, ROWS = 3;
  static const bool FILTER = true;
};

// Partial rounds by the small matrix.
template <int WIDTH> struct dense_constants {
  fr rescale[shape<WIDTH>::PARTIAL_ROUNDS];
  fr keys[shape<WIDTH>::PARTIAL_ROUNDS];
};

// Partial rounds by the filter. The matrices that lead there and back are factors of triangles,
// which are multiplied in place: above the diagonal the upper one, whose diagonal is of ones, from
// the diagonal on the lower one. `enter` puts the window where `partial_rounds` begins with it.
template <int WIDTH> struct filter_constants {
  fr keys[shape<WIDTH>::PARTIAL_ROUNDS];
  fr output; // of the newest element, the others with those of the feedback
  fr window[WIDTH - 1][2];
  fr enter[WIDTH][WIDTH];
  fr leave[WIDTH - 1][WIDTH - 1];
};

template <int WIDTH, bool FILTER> struct partial_constants {
  typedef dense_constants<WIDTH> type;
};
template <int WIDTH> struct partial_constants<WIDTH, true> {
  typedef filter_constants<WIDTH> type;
};

template <int WIDTH> struct constants {
  fr first; // domain tag and first key
  fr first_key[WIDTH - 1];
  fr full[FULL_ROUNDS][WIDTH]; // the last round has zeros
  fr last;
  typename partial_constants<WIDTH, shape<WIDTH>::FILTER>::type partial;
  // An even number of words, so that a 64-bit load can take an integer of two.
  word small[(2 * WIDTH - 1) * shape<WIDTH>::SMALL_WORDS];
};

// Half an element, as one access moves it.
struct alignas(16) half {
  word w[4];
};

// The elements of one thread, STRIDE halves apart.
template <int STRIDE> struct state_memory {
  half *base;

  SEAL_FN fr load(int element) const {
    const half low = base[(2 * element) * STRIDE], high = base[(2 * element + 1) * STRIDE];
    return {{low.w[0], low.w[1], low.w[2], low.w[3], high.w[0], high.w[1], high.w[2], high.w[3]}};
  }

  SEAL_FN void store(int element, const fr &x) const {
    base[(2 * element) * STRIDE] = {{x.w[0], x.w[1], x.w[2], x.w[3]}};
    base[(2 * element + 1) * STRIDE] = {{x.w[4], x.w[5], x.w[6], x.w[7]}};
  }
};

// Adds the products of an element with its integers of ROWS rows.
template <int WIDTH, int ROWS, int STRIDE>
SEAL_FN void small_column(const constants<WIDTH> &c, const state_memory<STRIDE> &state, int first,
                          int element, small_dot<shape<WIDTH>::SMALL_WORDS> *sums) {
  const fr x = state.load(element);
  SEAL_UNROLL
  for (int row = 0; row < ROWS; row++)
    sums[row].add(x, c.small + (first + row + element) * shape<WIDTH>::SMALL_WORDS);
}

// ROWS rows of the small matrix, from row `first` on. The first element is taken apart, since what
// sums begin with then needs no moves, and the last one, since sums then leave the loop in pairs of
// registers.
template <int WIDTH, int ROWS, int STRIDE>
SEAL_FN void small_rows(const constants<WIDTH> &c, const state_memory<STRIDE> &state, int first,
                        fr *out) {
  small_dot<shape<WIDTH>::SMALL_WORDS> sums[ROWS];
  SEAL_UNROLL
  for (int row = 0; row < ROWS; row++)
    sums[row].begin();
  small_column<WIDTH, ROWS, STRIDE>(c, state, first, 0, sums);
  SEAL_ROLLED
  for (int element = 1; element < WIDTH - 1; element++)
    small_column<WIDTH, ROWS, STRIDE>(c, state, first, element, sums);
  small_column<WIDTH, ROWS, STRIDE>(c, state, first, WIDTH - 1, sums);
  SEAL_UNROLL
  for (int row = 0; row < ROWS; row++)
    out[row] = sums[row].finish();
}

// The state times the small matrix. Results stay in registers until the last row has seen the
// whole state.
template <int WIDTH, int STRIDE>
SEAL_FN void small_matrix(const constants<WIDTH> &c, const state_memory<STRIDE> &state) {
  const int rows = shape<WIDTH>::ROWS;
  static_assert(WIDTH % rows == 0, "rows are taken in equal groups");
  fr out[WIDTH];
  SEAL_UNROLL
  for (int first = 0; first < WIDTH; first += rows)
    small_rows<WIDTH, rows, STRIDE>(c, state, first, out + first);
  SEAL_UNROLL
  for (int element = 0; element < WIDTH; element++)
    state.store(element, out[element]);
}

// S-boxes and keys of a full round.
template <int WIDTH, int STRIDE>
SEAL_FN void substitute(const state_memory<STRIDE> &state, const fr *keys) {
  SEAL_ROLLED
  for (int element = 0; element < WIDTH; element++)
    state.store(element, quintic(state.load(element), keys[element]));
}

// The elements from `first` on times a matrix given by its triangles.
template <int SIZE, int STRIDE>
SEAL_FN void triangles(const fr (*matrix)[SIZE], const state_memory<STRIDE> &state, int first) {
  SEAL_ROLLED
  for (int row = 0; row + 1 < SIZE; row++) {
    dot sum;
    sum.begin();
    SEAL_ROLLED
    for (int column = row + 1; column < SIZE; column++)
      sum.add(state.load(first + column), matrix[row][column]);
    state.store(first + row, sum.finish(state.load(first + row)));
  }
  SEAL_ROLLED
  for (int row = SIZE - 1; row >= 0; row--) {
    dot sum;
    sum.begin();
    SEAL_ROLLED
    for (int column = 0; column <= row; column++)
      sum.add(state.load(first + column), matrix[row][column]);
    state.store(first + row, sum.finish());
  }
}

template <int WIDTH, int STRIDE>
SEAL_FN void partial_rounds(const constants<WIDTH> &c, const dense_constants<WIDTH> &partial,
                            const state_memory<STRIDE> &state) {
  SEAL_ROLLED
  for (int round = 0; round < shape<WIDTH>::PARTIAL_ROUNDS; round++) {
    const fr power = quintic(state.load(0));
    state.store(0, multiply_add(power, partial.rescale[round], partial.keys[round]));
    small_matrix<WIDTH, STRIDE>(c, state);
  }
}

template <int WIDTH, int STRIDE>
SEAL_FN void partial_rounds(const constants<WIDTH> &, const filter_constants<WIDTH> &partial,
                            const state_memory<STRIDE> &state) {
  const int window = WIDTH - 1;
  triangles<WIDTH, STRIDE>(partial.enter, state, 0);
  fr x = state.load(0);
  // The window lies in elements 1 to `window`, in a ring that begins where it has to for its newest
  // element to be the first when the rounds are over.
  int newest = shape<WIDTH>::PARTIAL_ROUNDS % window;
  SEAL_ROLLED
  for (int round = 0; round < shape<WIDTH>::PARTIAL_ROUNDS; round++) {
    // The last product of the S-box is one of the feedback's terms.
    dot feedback, output;
    feedback.begin(partial.keys[round]);
    feedback.add(square_lazy(square(x)), x);
    output.begin();
    int at = newest;
    SEAL_ROLLED
    for (int i = 0; i < window; i++) {
      const fr element = state.load(1 + at);
      feedback.add(element, partial.window[i][0]);
      output.add(element, partial.window[i][1]);
      at = at + 1 == window ? 0 : at + 1;
    }
    const fr added = feedback.finish();
    output.add(added, partial.output);
    x = output.finish();
    // The oldest makes room.
    newest = newest == 0 ? window - 1 : newest - 1;
    state.store(1 + newest, added);
  }
  state.store(0, x);
  triangles<window, STRIDE>(partial.leave, state, 1);
}

// The hash of a state whose elements from the second on are the preimage as plain numbers with the
// first keys added: a plain number below p.
template <int WIDTH, int STRIDE>
SEAL_FN fr permute(const constants<WIDTH> &c, const state_memory<STRIDE> &state) {
  state.store(0, c.first);
  const int half_rounds = FULL_ROUNDS / 2;
  SEAL_ROLLED
  for (int round = 0; round < FULL_ROUNDS; round++) {
    substitute<WIDTH, STRIDE>(state, c.full[round]);
    // The filter's first half ends with a matrix that is part of what follows, the last round with
    // one row.
    const bool ends = round % half_rounds == half_rounds - 1;
    if (shape<WIDTH>::FILTER ? !ends : round + 1 < FULL_ROUNDS)
      small_matrix<WIDTH, STRIDE>(c, state);
    if (ends && round < half_rounds)
      partial_rounds<WIDTH, STRIDE>(c, c.partial, state);
  }
  fr row[1];
  small_rows<WIDTH, 1, STRIDE>(c, state, 1, row);
  fr hash = multiply(row[0], c.last);
  subtract_modulus(hash);
  return hash;
}

} // namespace seal

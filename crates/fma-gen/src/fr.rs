//! The scalar field: five balanced limbs of 51 bits, reduction by 2^306.
//!
//! A reduced element is at most 1.01 r in absolute value: its four lower limbs are at most 2^50
//! and its highest one at most [`TOP`].
//!
//! Reduction takes six limbs away. The digits of the first three come back three, two and one
//! limbs further up, times `2^-153`, `2^-102` and `2^-51` modulo r; those of the next two land on
//! the sixth limb in the same way; and that is cleared by a multiple of r itself, so that the
//! result is small: each of the two that land there adds a quarter of r and the clearing half of
//! it, and all else is less than a hundredth.

use crate::builder::{Builder, Column, Constants, Double, Split};
use crate::emit::{Output, Table};
use crate::numbers::{SCALAR_MODULUS, balanced, inverse_power, least_residue};
use crate::program::{Count, Pointer, Routine};

/// Bits of a limb.
const BITS: u32 = 51;
/// Limbs of an element.
const LIMBS: usize = 5;
/// Columns of a sum of products.
const COLUMNS: usize = 10;
/// Lanes of an element in memory, and bytes from limb to limb.
const LANES: i32 = 16;
const STRIDE: i32 = 8 * LANES;
const VECTORS: u32 = LANES as u32 / 4;
/// Bytes of a vector.
const VECTOR: i32 = 32;

/// The limit of the four lower limbs of a reduced element.
const LIMB: u128 = 1 << 50;
/// The limit of its highest limb.
const TOP: u128 = (1 << 51) * 92 / 100;
/// The limit of the highest limb of a constant, which is at most r / 2.
const CONSTANT_TOP: u128 = (1 << 50) * 92 / 100;
/// The limit of a column: what sums of products may reach.
const COLUMN: u128 = 1 << 60;
/// The limit of a number of the small matrix.
const SMALL: u128 = 1 << 44;
const SMALL_ROWS: &[&str] = &[
    "`rows[i] = Σ elements[j] * numbers[i + j] / 2^51` modulo r, reduced, of reduced elements and",
    "integers below 2^44, for three rows and more. Rows are no elements of the sum.",
];

const fn limits(limb: u128, top: u128) -> [u128; LIMBS] {
    [limb, limb, limb, limb, top]
}

const ELEMENT: [u128; LIMBS] = limits(LIMB, TOP);
const TWO_ELEMENTS: [u128; LIMBS] = limits(2 * LIMB, 2 * TOP);
const CONSTANT: [u128; LIMBS] = limits(LIMB, CONSTANT_TOP);

fn at(limb: usize) -> i32 {
    limb as i32 * STRIDE
}

pub(crate) fn output(constants: &mut Constants) -> Output {
    let (add_constant_products, constant_offsets) = constant_products(constants, false);
    let (constant_product, same_offsets) = constant_products(constants, true);
    assert_eq!(constant_offsets, same_offsets);
    let (add_product, offsets) = product(constants, false);
    let (product, same_offsets) = product(constants, true);
    assert_eq!(offsets, same_offsets);
    let (reduce, sum_offsets) = reduce(constants);
    let square = square(constants, &sum_offsets);
    Output {
        routines: vec![
            add_constant_products,
            constant_product,
            add_product,
            product,
            square,
            reduce,
            mix(constants),
            small_rows(constants, 3, "small_rows_of_3", SMALL_ROWS),
            small_rows(constants, 9, "small_rows_of_9", SMALL_ROWS),
            small_rows(constants, 12, "small_rows_of_12", SMALL_ROWS),
        ],
        tables: vec![
            Table {
                name: "SUM_OFFSETS",
                about: "What [`reduce`] expects in columns beside their numbers.",
                numbers: sum_offsets.to_vec(),
            },
            Table {
                name: "CONSTANT_PRODUCT_OFFSETS",
                about: "What a term of [`add_constant_products`] adds to columns beside its product.",
                numbers: constant_offsets,
            },
            Table {
                name: "PRODUCT_OFFSETS",
                about: "What [`add_product`] adds to columns beside the product.",
                numbers: offsets,
            },
        ],
    }
}

/// Pairs products of a column whose high parts fit together, the largest with the smallest.
fn in_pairs(mut products: Vec<(Double, Double)>) -> Vec<Vec<(Double, Double)>> {
    let size = |(a, b): &(Double, Double)| a.max * b.max;
    products.sort_by_key(size);
    let mut groups = Vec::new();
    while let Some(largest) = products.pop() {
        let fits = |other: &(Double, Double)| size(other) + size(&largest) <= 1 << (51 + BITS);
        match products.iter().rposition(fits) {
            Some(other) => groups.push(vec![products.remove(other), largest]),
            None => groups.push(vec![largest]),
        }
    }
    groups
}

/// For each column the products that it gets, in pairs, added to what it has already.
fn add_columns_of(
    builder: &mut Builder<'_>,
    products: &[Vec<(Double, Double)>],
    columns: &mut [Option<Column>],
) {
    for (k, products) in products.iter().enumerate() {
        for group in in_pairs(products.clone()) {
            let Split { high, low } = builder.split(BITS, &group);
            builder.add_to(&mut columns[k], low);
            builder.add_to(&mut columns[k + 1], high);
        }
    }
}

/// `columns += element * constant`, for some elements and their constants, or `columns = start +
/// element * constant` for one.
fn constant_products(constants: &mut Constants, starts: bool) -> (Routine, Vec<u64>) {
    let mut offsets = Vec::new();
    let [columns, elements, factors, start] = [0, 1, 2, 3].map(Pointer);
    let mut builder = Builder::new(constants);
    builder.pin_split(BITS);
    builder.repeat(
        if starts { Count::Fixed(1) } else { Count::Argument(3) },
        &[
            (factors, 8 * LIMBS as i32),
            (elements, STRIDE * LIMBS as i32 - STRIDE),
            (columns, -STRIDE),
        ],
        &[],
        |builder| {
            builder.repeat(
                Count::Fixed(VECTORS),
                &[(elements, VECTOR), (columns, VECTOR)],
                &[],
                |builder| {
                    let a: [_; LIMBS] = std::array::from_fn(|i| {
                        builder.load_double(elements, at(i), TWO_ELEMENTS[i])
                    });
                    let mut next: Option<Column> = None;
                    for k in 0..COLUMNS {
                        let old = if starts {
                            builder.same_column_at(start, 8 * k as i32, COLUMN)
                        } else {
                            builder.column_at(columns, at(k), 0, COLUMN)
                        };
                        let mut sums = [next.take(), None];
                        builder.add_to(&mut sums[0], old);
                        if k < COLUMNS - 1 {
                            let products = (0..LIMBS)
                                .filter(|&i| i <= k && k - i < LIMBS)
                                .map(|i| {
                                    let (j, limit) = (k - i, CONSTANT[k - i]);
                                    (a[i], builder.same_double_at(factors, 8 * j as i32, limit))
                                })
                                .collect();
                            add_columns_of(builder, &[products], &mut sums);
                        }
                        next = sums[1];
                        let sum = sums[0].expect("the old column at least");
                        offsets.push(sum.offset);
                        builder.store_column(columns, at(k), sum);
                    }
                },
            );
        },
    );
    let body = builder.finish();
    let routine = if starts {
        Routine {
            name: "constant_product",
            about: &[
                "`columns = start + element * factor`, plus [`CONSTANT_PRODUCT_OFFSETS`]; limits as in",
                "[`add_constant_products`].",
            ],
            arguments: &[
                ("columns", "*mut i64"),
                ("elements", "*const f64"),
                ("factors", "*const f64"),
                ("start", "*const i64"),
            ],
            body,
        }
    } else {
        Routine {
            name: "add_constant_products",
            about: &[
                "`columns += element * factor` for `terms` elements and factors in a row.",
                "",
                "Each adds [`CONSTANT_PRODUCT_OFFSETS`] to the columns as well. Limbs of elements are those",
                "of at most two reduced ones together, factors are balanced and at most r / 2.",
            ],
            arguments: &[
                ("columns", "*mut i64"),
                ("elements", "*const f64"),
                ("factors", "*const f64"),
                ("terms", "usize"),
            ],
            body,
        }
    };
    (routine, offsets)
}

/// `columns += left * right`, or `columns = start + left * right` with a start in all lanes.
fn product(constants: &mut Constants, starts: bool) -> (Routine, Vec<u64>) {
    let mut offsets = Vec::new();
    let [columns, left, right, start] = [0, 1, 2, 3].map(Pointer);
    let mut builder = Builder::new(constants);
    builder.pin_split(BITS);
    let steps = [columns, left, right].map(|pointer| (pointer, VECTOR));
    builder.repeat(Count::Fixed(VECTORS), &steps, &[], |builder| {
        let a: [_; LIMBS] = std::array::from_fn(|i| builder.load_double(left, at(i), ELEMENT[i]));
        let b: [_; LIMBS] = std::array::from_fn(|i| builder.double_at(right, at(i), ELEMENT[i]));
        let mut next: Option<Column> = None;
        for k in 0..COLUMNS {
            let old = if starts {
                builder.same_column_at(start, 8 * k as i32, COLUMN)
            } else {
                builder.column_at(columns, at(k), 0, COLUMN)
            };
            let mut sums = [next.take(), None];
            builder.add_to(&mut sums[0], old);
            let products =
                (0..LIMBS).filter(|&i| i <= k && k - i < LIMBS).map(|i| (a[i], b[k - i])).collect();
            add_columns_of(builder, &[products], &mut sums);
            next = sums[1];
            let sum = sums[0].expect("the old column at least");
            offsets.push(sum.offset);
            builder.store_column(columns, at(k), sum);
        }
    });
    let routine = if starts {
        Routine {
            name: "product",
            about: &[
                "`columns = start + left * right`, of reduced elements, plus [`PRODUCT_OFFSETS`].",
            ],
            arguments: &[
                ("columns", "*mut i64"),
                ("left", "*const f64"),
                ("right", "*const f64"),
                ("start", "*const i64"),
            ],
            body: builder.finish(),
        }
    } else {
        Routine {
            name: "add_product",
            about: &["`columns += left * right`, of reduced elements, plus [`PRODUCT_OFFSETS`]."],
            arguments: &[("columns", "*mut i64"), ("left", "*const f64"), ("right", "*const f64")],
            body: builder.finish(),
        }
    };
    (routine, offsets)
}

fn square(constants: &mut Constants, offsets: &[u64; COLUMNS]) -> Routine {
    let [columns, element] = [0, 1].map(Pointer);
    let mut builder = Builder::new(constants);
    builder.pin_split(BITS);
    let steps = [columns, element].map(|pointer| (pointer, VECTOR));
    builder.repeat(Count::Fixed(VECTORS), &steps, &[], |builder| {
        let a: [_; LIMBS] =
            std::array::from_fn(|i| builder.load_double(element, at(i), ELEMENT[i]));
        let mut products = vec![Vec::new(); COLUMNS];
        for i in 0..LIMBS {
            // Each product of two limbs comes twice.
            let twice = builder.add(a[i], a[i]);
            products[2 * i].push((a[i], a[i]));
            for j in i + 1..LIMBS {
                products[i + j].push((twice, a[j]));
            }
        }
        let mut next: Option<Column> = None;
        for (k, products) in products.into_iter().enumerate() {
            let mut sums = [next.take(), None];
            add_columns_of(builder, &[products], &mut sums);
            next = sums[1];
            let sum = sums[0].expect("each column has a product");
            let sum = builder.offset_by(sum, offsets[k]);
            builder.store_column(columns, at(k), sum);
        }
    });
    Routine {
        name: "square",
        about: &["`columns = element²`, of a reduced element, plus [`SUM_OFFSETS`]."],
        arguments: &[("columns", "*mut i64"), ("element", "*const f64")],
        body: builder.finish(),
    }
}

/// The routine, and the offsets that it expects of columns: those that spare it additions.
fn reduce(constants: &mut Constants) -> (Routine, [u64; COLUMNS]) {
    let [element, columns] = [0, 1].map(Pointer);
    let modulus: [i64; LIMBS] = balanced(&SCALAR_MODULUS, BITS);
    let folds = [1, 2, 3].map(|n| {
        least_residue::<LIMBS>(&inverse_power(&SCALAR_MODULUS, BITS * n), &SCALAR_MODULUS, BITS)
    });
    let mut other_constants = Constants::default();
    let mut trial = Builder::new(&mut other_constants);
    let none = [0; COLUMNS];
    let at_use = reduce_vector(&mut trial, element, columns, 0, &modulus, &folds, &none);
    let offsets: [u64; COLUMNS] = std::array::from_fn(|k| {
        let wanted = if k == 5 {
            Builder::offset_for_quotient(BITS)
        } else {
            Builder::offset_for_digit(BITS)
        };
        wanted.wrapping_sub(at_use[k])
    });
    let mut builder = Builder::new(constants);
    let step = VECTOR * TOGETHER as i32;
    builder.repeat(
        Count::Fixed(VECTORS / TOGETHER),
        &[(element, step), (columns, step)],
        &[],
        |builder| {
            builder.side_by_side(TOGETHER as usize, |builder, stream| {
                let shift = VECTOR * stream as i32;
                reduce_vector(builder, element, columns, shift, &modulus, &folds, &offsets);
            });
        },
    );
    let routine = Routine {
        name: "reduce",
        about: &[
            "`element = columns / 2^306` modulo r, reduced, of columns below 2^60 plus",
            "[`SUM_OFFSETS`]. The columns are of no use afterwards.",
        ],
        arguments: &[("element", "*mut f64"), ("columns", "*mut i64")],
        body: builder.finish(),
    };
    (routine, offsets)
}

/// How many vectors are reduced in one turn.
const TOGETHER: u32 = 2;

/// The columns that are being reduced: some in registers, the others in memory, where the sum was
/// given and may be changed. So few values are kept that two vectors fit into the registers.
struct Reducing {
    columns: [Option<Column>; COLUMNS + 1],
    source: Pointer,
    shift: i32,
    /// The offsets with which columns were used up.
    at_use: [u64; COLUMNS],
}

impl Reducing {
    fn new(
        builder: &mut Builder<'_>,
        source: Pointer,
        shift: i32,
        offsets: &[u64; COLUMNS],
    ) -> Self {
        let columns = std::array::from_fn(|k| {
            (k < COLUMNS).then(|| builder.column_at(source, at(k) + shift, offsets[k], 2 * COLUMN))
        });
        Self { columns, source, shift, at_use: [0; COLUMNS] }
    }

    /// Stores a column until it is needed.
    fn put_away(&mut self, builder: &mut Builder<'_>, k: usize) {
        // The one that the sum did not have goes where the lowest was.
        let place = at(k % COLUMNS) + self.shift;
        let column = self.columns[k].expect("a column");
        self.columns[k] = Some(builder.put_away(self.source, place, column));
    }

    /// The balanced lowest bits of a column, whose carry goes to the next.
    fn digit(&mut self, builder: &mut Builder<'_>, k: usize) -> Double {
        let (digit, carry) = self.digit_and_carry(builder, k);
        builder.add_to(&mut self.columns[k + 1], carry);
        digit
    }

    fn digit_and_carry(&mut self, builder: &mut Builder<'_>, k: usize) -> (Double, Column) {
        let column = self.columns[k].take().expect("a column");
        self.at_use[k] = column.offset;
        builder.digit(BITS, column)
    }

    /// Adds products to a column.
    fn add(&mut self, builder: &mut Builder<'_>, k: usize, products: Vec<(Double, Double)>) {
        add_columns_of(builder, &[products], &mut self.columns[k..k + 2]);
    }

    /// Takes the digits from `first` to `place` away and gives them back from `place` on.
    fn land(
        &mut self,
        builder: &mut Builder<'_>,
        first: usize,
        place: usize,
        folds: &[[i64; LIMBS]; 3],
    ) {
        let digits: Vec<_> =
            (first..place).map(|i| (self.digit(builder, i), &folds[place - i - 1])).collect();
        for j in 0..LIMBS {
            let products =
                digits.iter().map(|(digit, fold)| (*digit, builder.constant(fold[j]))).collect();
            self.add(builder, place + j, products);
            if j > 0 || first == 0 {
                self.put_away(builder, place + j);
            }
        }
        self.put_away(builder, place + LIMBS);
    }
}

fn reduce_vector(
    builder: &mut Builder<'_>,
    element: Pointer,
    source: Pointer,
    shift: i32,
    modulus: &[i64; LIMBS],
    folds: &[[i64; LIMBS]; 3],
    offsets: &[u64; COLUMNS],
) -> [u64; COLUMNS] {
    let mut sum = Reducing::new(builder, source, shift, offsets);
    sum.land(builder, 0, 3, folds);
    sum.land(builder, 3, 5, folds);
    clear(builder, &mut sum, 5, modulus, element, shift);
    sum.at_use
}

/// Clears a column by a multiple of r and stores the balanced digits of those above it.
fn clear(
    builder: &mut Builder<'_>,
    sum: &mut Reducing,
    place: usize,
    modulus: &[i64; LIMBS],
    element: Pointer,
    shift: i32,
) {
    // r is 1 - 2^32 modulo 2^51, so that 1 / r is 1 + 2^32.
    let column = sum.columns[place].take().expect("a column");
    sum.at_use[place] = column.offset;
    let column = builder.in_register_column(column);
    let quotient = builder.over_one_less_power(BITS, 32, column);
    let negative = modulus.map(|limb| builder.constant(-limb));
    let Split { high, low } = builder.split(BITS, &[(quotient, negative[0])]);
    let cleared = builder.add_columns(column, low);
    let mut carry = builder.divided(BITS, cleared);
    carry = builder.add_columns(carry, high);
    for limb in 0..LIMBS {
        let k = place + 1 + limb;
        builder.add_to(&mut sum.columns[k], carry);
        if limb == LIMBS - 1 {
            let top = builder.as_double(sum.columns[k].expect("carried"));
            assert!(top.max <= TOP, "the highest limb is up to {}, not {TOP}", top.max);
            builder.store_double(element, at(limb) + shift, top);
            break;
        }
        sum.add(builder, k, vec![(quotient, negative[limb + 1])]);
        let (digit, next) = sum.digit_and_carry(builder, k);
        assert!(digit.max <= ELEMENT[limb]);
        builder.store_double(element, at(limb) + shift, digit);
        carry = next;
    }
}

/// Pairs of products that do not wait for each other, for measuring what the vector units do.
fn mix(constants: &mut Constants) -> Routine {
    let mut builder = Builder::new(constants);
    builder.pin_split(BITS);
    let numbers = [3, 5, 7, 11].map(|number| {
        let number = builder.constant(number);
        builder.in_register_double(number)
    });
    let [a, b, c, d] = numbers;
    builder.repeat(Count::Argument(0), &[], &[], |builder| {
        for _ in 0..8 {
            let Split { high, low } = builder.split(BITS, &[(a, b), (c, d)]);
            let sum = builder.add_columns(high, low);
            builder.add_columns(sum, low);
        }
    });
    Routine {
        name: "mix",
        about: &["Pairs of products and nothing else, in so many turns."],
        arguments: &[("turns", "usize")],
        body: builder.finish(),
    }
}

/// Three rows of the small matrix at a time, whose numbers overlap: row `i` has those from `i` on.
///
/// Limb by limb, so that few columns are in registers; complete ones wait in the places of the
/// result's limbs.
fn small_rows(
    constants: &mut Constants,
    terms: usize,
    name: &'static str,
    about: &'static [&'static str],
) -> Routine {
    const ROWS: usize = 3;
    let [rows, elements, numbers] = [0, 1, 2].map(Pointer);
    let modulus: [i64; LIMBS] = balanced(&SCALAR_MODULUS, BITS);
    let element_bytes = STRIDE * LIMBS as i32;
    let mut builder = Builder::new(constants);
    let back = -STRIDE;
    builder.repeat(
        Count::Argument(3),
        &[(rows, ROWS as i32 * element_bytes + back), (elements, back), (numbers, 8 * ROWS as i32)],
        &[],
        |builder| {
            builder.repeat(
                Count::Fixed(VECTORS),
                &[(rows, VECTOR), (elements, VECTOR)],
                &[],
                |builder| {
                    let mut columns = [[None; LIMBS + 1]; ROWS];
                    for limb in 0..LIMBS {
                        for group in (0..terms).collect::<Vec<_>>().chunks(2) {
                            let read: Vec<_> = group
                                .iter()
                                .map(|term| {
                                    let place = *term as i32 * element_bytes + at(limb);
                                    builder.load_double(elements, place, ELEMENT[limb])
                                })
                                .collect();
                            let factors: Vec<_> = (0..ROWS + group.len() - 1)
                                .map(|i| {
                                    let place = 8 * (group[0] + i) as i32;
                                    builder.broadcast_double(numbers, place, SMALL)
                                })
                                .collect();
                            for (row, columns) in columns.iter_mut().enumerate() {
                                let products: Vec<_> = read
                                    .iter()
                                    .zip(&factors[row..])
                                    .map(|(element, factor)| (*element, *factor))
                                    .collect();
                                let Split { high, low } = builder.split(BITS, &products);
                                builder.add_to(&mut columns[limb], low);
                                builder.add_to(&mut columns[limb + 1], high);
                            }
                        }
                        for (row, columns) in columns.iter_mut().enumerate() {
                            let place = row as i32 * element_bytes + at(limb);
                            let complete = columns[limb].expect("a product at least");
                            columns[limb] = Some(builder.put_away(rows, place, complete));
                        }
                    }
                    builder.side_by_side(ROWS, |builder, row| {
                        let mut sum = Reducing {
                            columns: [None; COLUMNS + 1],
                            source: rows,
                            shift: 0,
                            at_use: [0; COLUMNS],
                        };
                        sum.columns[..=LIMBS].copy_from_slice(&columns[row]);
                        let shift = row as i32 * element_bytes;
                        clear(builder, &mut sum, 0, &modulus, rows, shift);
                    });
                },
            );
        },
    );
    Routine {
        name,
        about,
        arguments: &[
            ("rows", "*mut f64"),
            ("elements", "*const f64"),
            ("numbers", "*const f64"),
            ("triples", "usize"),
        ],
        body: builder.finish(),
    }
}

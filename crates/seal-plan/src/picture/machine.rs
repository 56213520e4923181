//! A machine with what runs where: sockets, NUMA nodes, L3 groups and cores, GPUs and locks beside
//! them.

use seal_config::StageName;
use seal_host::NodeId;

use super::canvas::{Anchor, Area, Canvas, Style, fitted, text_width};
use super::colours::{FREE, IDLE, of_executor};
use crate::hardware::{Core, Gpu, L3Group, Node};
use crate::{Executor, Hardware, Scheme};

/// The room of one hardware thread.
const CELL: (f64, f64) = (27.0, 18.0);
/// Around the cores of an L3 group, and between groups.
const PAD: f64 = 4.0;
const GAP: f64 = 8.0;
/// The most room that the groups of a node take side by side.
const ROW: f64 = 1120.0;
/// The column of GPUs.
const BESIDE: f64 = 250.0;
const MARGIN: f64 = 12.0;

/// The machine with the executors of `scheme` on it. `title` stands above.
pub fn draw_machine(hardware: &Hardware, scheme: &Scheme, title: &str) -> Canvas {
    let mut canvas = Canvas::default();
    let groups: Vec<_> = hardware.nodes.iter().map(|node| hardware.l3_groups_of(node.id)).collect();
    let wide = groups.iter().map(|groups| row_width(groups, hardware)).fold(360.0, f64::max);
    let all = wide + 4.0 * PAD + GAP + BESIDE;
    let mut y = MARGIN + 14.0;
    let title = fitted(title, 16.0, all / 1.12);
    canvas.text(MARGIN, y, Style::plain(16.0).bold(), &title);
    y += 18.0;
    let told = fitted(&about(hardware), 12.0, all);
    canvas.text(MARGIN, y, Style::plain(12.0).grey(), &told);
    y += 12.0;
    for (socket, nodes) in hardware.sockets() {
        let top = y;
        let mut inside = Canvas::default();
        y += 20.0;
        for node in &nodes {
            let groups = hardware.l3_groups_of(node.id);
            y = draw_node(&mut inside, hardware, scheme, node, &groups, wide, y) + GAP;
        }
        let frame = Area { x: MARGIN, y: top, width: wide + 4.0 * PAD, height: y - top };
        canvas.rect(frame, "#fafafa", Some("#999999"), "");
        canvas.text(
            MARGIN + 8.0,
            top + 15.0,
            Style::plain(12.0).bold(),
            &format!("socket {socket}"),
        );
        canvas.append(inside);
        let ids: Vec<_> = nodes.iter().map(|node| node.id).collect();
        let here = |gpu: &&Gpu| gpu.node.is_some_and(|node| ids.contains(&node));
        let beside = MARGIN + frame.width + GAP;
        let below = draw_gpus(&mut canvas, scheme, hardware.gpus.iter().filter(here), beside, top);
        y = y.max(below) + GAP;
    }
    let elsewhere: Vec<_> = hardware.gpus.iter().filter(|gpu| gpu.node.is_none()).collect();
    if !elsewhere.is_empty() {
        y = draw_gpus(&mut canvas, scheme, elsewhere.into_iter(), MARGIN, y) + GAP;
    }
    y = draw_locks(&mut canvas, scheme, y, all);
    draw_legend(&mut canvas, hardware, scheme, y, all);
    canvas
}

fn about(hardware: &Hardware) -> String {
    let cores = hardware.cores();
    let threads = match hardware.threads_per_core() {
        0 | 1 => String::new(),
        threads => format!(" of {threads} threads"),
    };
    let gpus = match hardware.gpus.len() {
        0 => "no GPU".to_owned(),
        1 => "1 GPU".to_owned(),
        gpus => format!("{gpus} GPUs"),
    };
    format!("{}: {cores} cores{threads}, {} of memory, {gpus}", hardware.name, hardware.memory())
}

/// How many cores a group shows side by side.
fn columns(group: &L3Group) -> usize {
    match group.cores.len() {
        cores @ 0..=4 => cores.max(1),
        cores @ 5..=24 => cores.div_ceil(2),
        _ => 16,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few")]
fn group_size(group: &L3Group, threads: usize) -> (f64, f64) {
    let columns = columns(group);
    let rows = group.cores.len().div_ceil(columns);
    let height = rows as f64 * (CELL.1 * threads as f64 + 1.0);
    (columns as f64 * (CELL.0 + 1.0) - 1.0 + 2.0 * PAD, height - 1.0 + 2.0 * PAD)
}

/// The width of a node's groups in rows.
fn row_width(groups: &[L3Group], hardware: &Hardware) -> f64 {
    let mut widest = 0.0_f64;
    let mut x = 0.0;
    for group in groups {
        let (width, _) = group_size(group, hardware.threads_per_core());
        if x > 0.0 && x + width > ROW {
            x = 0.0;
        }
        x += width + GAP;
        widest = widest.max(x - GAP);
    }
    widest + 2.0 * PAD
}

fn draw_node(
    canvas: &mut Canvas,
    hardware: &Hardware,
    scheme: &Scheme,
    node: &Node,
    groups: &[L3Group],
    wide: f64,
    top: f64,
) -> f64 {
    let left = MARGIN + PAD;
    let threads = hardware.threads_per_core();
    let mut inside = Canvas::default();
    let (mut x, mut y, mut lowest) = (left + PAD, top + 20.0, top + 20.0);
    for group in groups {
        let (width, height) = group_size(group, threads);
        if x > left + PAD && x + width > left + PAD + ROW {
            (x, y) = (left + PAD, lowest + GAP);
        }
        draw_group(&mut inside, scheme, group, threads, Area { x, y, width, height });
        x += width + GAP;
        lowest = lowest.max(y + height);
    }
    let bottom = lowest + PAD;
    let frame = Area { x: left, y: top, width: wide + 2.0 * PAD, height: bottom - top };
    canvas.rect(frame, "#ffffff", Some("#bbbbbb"), "");
    let cores: usize = groups.iter().map(|group| group.cores.len()).sum();
    let told = format!(
        "node {}: {cores} cores, {} of memory, {} usable",
        node.id, node.memory, node.usable
    );
    canvas.text(left + 6.0, top + 14.0, Style::plain(11.0), &fitted(&told, 11.0, wide));
    canvas.append(inside);
    bottom
}

fn draw_group(canvas: &mut Canvas, scheme: &Scheme, group: &L3Group, threads: usize, area: Area) {
    canvas.rect(area, "#dddddd", None, &format!("L3 cache of cpu {}", group.id));
    let columns = columns(group);
    for (at, core) in group.cores.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let (column, row) = ((at % columns) as f64, (at / columns) as f64);
        #[expect(clippy::cast_precision_loss, reason = "one or two")]
        let high = CELL.1 * threads as f64;
        let x = area.x + PAD + column * (CELL.0 + 1.0);
        let y = area.y + PAD + row * (high + 1.0);
        for (thread, cpu) in core.cpus.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "one or two")]
            let y = y + CELL.1 * thread as f64;
            let area = Area { x, y, width: CELL.0, height: CELL.1 };
            draw_cpu(canvas, scheme, core, cpu, area);
        }
    }
}

/// A hardware thread, in as many stripes as executors use it.
fn draw_cpu(canvas: &mut Canvas, scheme: &Scheme, core: &Core, cpu: u32, area: Area) {
    let users: Vec<_> =
        scheme.executors.iter().filter(|executor| executor.busy.contains(cpu)).collect();
    let mut title = format!("cpu {cpu}");
    let beside: Vec<_> = scheme
        .executors
        .iter()
        .filter(|executor| core.cpus.iter().any(|thread| executor.busy.contains(thread)))
        .map(name_of)
        .collect();
    if users.is_empty() && !beside.is_empty() {
        title.push_str(&format!(": idle thread of a core of {}", beside.join(", ")));
        canvas.rect(area, IDLE, None, &title);
    } else if users.is_empty() {
        let allowed = scheme.executors.iter().filter(|it| it.allowed.contains(cpu)).map(name_of);
        let allowed: Vec<_> = allowed.collect();
        match allowed.as_slice() {
            [] => title.push_str(": free"),
            names => {
                title.push_str(&format!(": in the cpuset of {}, in no unit", names.join(", ")))
            }
        }
        canvas.rect(area, FREE, None, &title);
    }
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let width = area.width / users.len().max(1) as f64;
    for (at, executor) in users.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let x = area.x + width * at as f64;
        let role = role_of(executor, cpu);
        let told = format!("{title}: {}{role}", name_of(executor));
        let fill = of_executor(executor.stage, executor.index);
        canvas.rect(Area { x, width, ..area }, fill, None, &told);
        if role == " (labels)" {
            // A bar under the cores that label.
            let bar = Area { x, y: area.y + area.height - 2.5, width, height: 2.5 };
            canvas.rect(bar, "#1d3557", None, &told);
        }
    }
    let middle = (area.x + area.width / 2.0, area.y + area.height / 2.0 + 3.0);
    let style = Style::plain(9.0).at(Anchor::Middle);
    canvas.text(middle.0, middle.1, style, &cpu.to_string());
}

/// What a core of PC1 does.
fn role_of(executor: &Executor, cpu: u32) -> &'static str {
    let Some(plan) = &executor.units else { return "" };
    if plan.units.iter().any(|unit| unit.consumer == cpu) {
        " (labels)"
    } else if plan.units.iter().any(|unit| unit.producers.contains(&cpu)) {
        " (gathers parents)"
    } else {
        ""
    }
}

fn name_of(executor: &Executor) -> String {
    format!("{}[{}]", executor.stage, executor.index)
}

/// GPUs below each other. Returns where they end.
fn draw_gpus<'a>(
    canvas: &mut Canvas,
    scheme: &Scheme,
    gpus: impl Iterator<Item = &'a Gpu>,
    x: f64,
    top: f64,
) -> f64 {
    let mut y = top;
    for gpu in gpus {
        let users: Vec<_> =
            scheme.executors.iter().filter(|it| it.gpus.contains(&gpu.index)).collect();
        let frame = Area { x, y, width: BESIDE, height: 60.0 };
        // Chips first, because the frame must hold all their rows.
        let mut chips = Canvas::default();
        let below = draw_chips(&mut chips, &users, x + 8.0, y + 34.0, BESIDE - 16.0);
        let frame = Area { height: (below + 6.0 - y).max(frame.height), ..frame };
        canvas.rect(frame, "#f4f4f4", Some("#999999"), "");
        let memory = gpu.memory.map_or(String::new(), |memory| format!(", {memory}"));
        let node = gpu.node.map_or(String::new(), |node| format!(", node {node}"));
        let name = format!("GPU {}{memory}{node}", gpu.index);
        let name = fitted(&name, 12.0, (BESIDE - 16.0) / 1.12);
        canvas.text(x + 8.0, y + 15.0, Style::plain(12.0).bold(), &name);
        let model = fitted(&gpu.model, 11.0, BESIDE - 16.0);
        canvas.text(x + 8.0, y + 29.0, Style::plain(11.0).grey(), &model);
        canvas.append(chips);
        if users.is_empty() {
            canvas.text(x + 8.0, y + 47.0, Style::plain(11.0), "not used");
        }
        y += frame.height + GAP;
    }
    y
}

/// Names of executors in their colours, in rows. Returns where they end.
fn draw_chips(canvas: &mut Canvas, users: &[&Executor], left: f64, top: f64, wide: f64) -> f64 {
    const HIGH: f64 = 17.0;
    let (mut x, mut y) = (left, top);
    for executor in users {
        let name = fitted(&name_of(executor), 11.0, wide - 10.0);
        let width = text_width(&name, 11.0, false) + 10.0;
        if x > left && x + width > left + wide {
            (x, y) = (left, y + HIGH + 3.0);
        }
        let fill = of_executor(executor.stage, executor.index);
        canvas.rect(Area { x, y, width, height: HIGH }, fill, None, &executor.key);
        canvas.text(x + 5.0, y + 12.5, Style::plain(11.0), &name);
        x += width + 5.0;
    }
    y + HIGH
}

fn draw_locks(canvas: &mut Canvas, scheme: &Scheme, top: f64, wide: f64) -> f64 {
    let mut y = top;
    for (name, lock) in &scheme.locks {
        let told = match lock.count.get() {
            1 => format!("lock {name}, one task at a time:"),
            count => format!("lock {name}, {count} tasks at a time:"),
        };
        let told = fitted(&told, 12.0, wide / 2.0);
        let text = canvas.text(MARGIN, y + 12.5, Style::plain(12.0), &told);
        let users: Vec<_> = scheme.executors.iter().filter(|it| it.locks.contains(name)).collect();
        let left = text.x + text.width + 8.0;
        y = draw_chips(canvas, &users, left, y, wide - text.width - 8.0) + 6.0;
    }
    y
}

/// Whether a core has a thread that is used and one that is not.
fn is_half_idle(scheme: &Scheme, core: &Core) -> bool {
    let used = |cpu: u32| scheme.executors.iter().any(|executor| executor.busy.contains(cpu));
    core.cpus.iter().any(used) && !core.cpus.iter().all(used)
}

fn draw_legend(canvas: &mut Canvas, hardware: &Hardware, scheme: &Scheme, top: f64, wide: f64) {
    let mut y = top + 6.0;
    let mut row = |canvas: &mut Canvas, fill: &str, bar: bool, text: &str| {
        let swatch = Area { x: MARGIN, y, width: 22.0, height: 14.0 };
        canvas.rect(swatch, fill, None, "");
        if bar {
            let bar = Area { y: y + 11.5, height: 2.5, ..swatch };
            canvas.rect(bar, "#1d3557", None, "");
        }
        let text = fitted(text, 12.0, wide - 30.0);
        canvas.text(MARGIN + 30.0, y + 11.5, Style::plain(12.0), &text);
        y += 19.0;
    };
    for executor in &scheme.executors {
        let tasks = match executor.tasks {
            Some(1) => "1 task at a time".to_owned(),
            Some(tasks) => format!("{tasks} tasks at a time"),
            None => "any number of tasks".to_owned(),
        };
        let node =
            executor.node.map_or(String::new(), |NodeId(id)| format!(", memory of node {id}"));
        let told = format!("{}: {tasks} on cpus {}{node}", name_of(executor), executor.allowed);
        row(canvas, of_executor(executor.stage, executor.index), false, &told);
    }
    if scheme.stage(StageName::Pc1).next().is_some() {
        let fill = of_executor(StageName::Pc1, 0);
        row(canvas, fill, true, "a core of PC1 that labels; those without a bar gather parents");
    }
    let groups = hardware.l3_groups();
    if groups.iter().flat_map(|group| &group.cores).any(|core| is_half_idle(scheme, core)) {
        row(canvas, IDLE, false, "the idle thread of a core whose other thread is used");
    }
    row(canvas, FREE, false, "a core that nobody uses");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use seal_types::SectorSize;

    use super::super::canvas::assert_legible;
    use super::*;
    use crate::hardware;

    const SCHEME: &str = "tests/schemes/scheme-b.toml";

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn draw(machine: &str, config: &str) -> (Hardware, Canvas) {
        let machine = hardware::parse(Path::new("m.toml"), machine).expect("a machine");
        let config = seal_config::parse(Path::new("w.toml"), config).expect("a configuration");
        let scheme = Scheme::of(&config, &machine, SectorSize::GIB_32);
        let canvas = draw_machine(&machine, &scheme, "w.toml");
        (machine, canvas)
    }

    fn file(name: &str) -> String {
        std::fs::read_to_string(root().join(name)).expect("a file of ours")
    }

    /// Every cpu is named once, and everything can be read.
    fn check(machine: &str, config: &str) {
        let (machine, canvas) = draw(machine, config);
        assert_legible(&canvas);
        let numbers = canvas.texts().iter().filter_map(|(text, _)| text.parse::<u32>().ok());
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        assert_eq!(numbers, machine.topology.cpu_set().iter().collect::<Vec<_>>());
        assert_eq!(canvas.svg().matches("<text").count(), canvas.texts().len());
    }

    const LARGE: &str = r#"
        name = "2 x EPYC 9654"
        memory = "1536GiB"
        cores_per_l3 = 8
        threads_per_core = 2
        numa_nodes = [{ id = 0, cpus = "0-95,192-287" }, { id = 1, cpus = "96-191,288-383" }]
        gpus = [
            { index = 0, model = "NVIDIA RTX 6000 Ada Generation", memory = "48GiB", numa_node = 0 },
            { index = 1, model = "NVIDIA RTX 6000 Ada Generation", memory = "48GiB", numa_node = 1 },
            { index = 2, model = "another one that nobody told the place of" },
        ]
    "#;

    const SMALL: &str = r#"
        name = "a laptop"
        memory = "32GiB"
        numa_nodes = [{ id = 0, cpus = "0-3" }]
    "#;

    #[test]
    fn machines_from_four_to_384_cpus_are_legible() {
        let epyc = file("crates/seal-plan/machines/epyc7642x2.toml");
        check(&epyc, &file(SCHEME));
        check(&epyc, &file("tests/schemes/scheme-a.toml"));
        check(LARGE, &file(SCHEME));
        check(SMALL, "[[processors.pc1]]\n[[processors.pc2]]\n[[processors.c2]]\n");
        check(SMALL, "[processors]");
    }

    #[test]
    fn cores_have_the_colours_of_those_who_use_them() {
        let (_, canvas) = draw(&file("crates/seal-plan/machines/epyc7642x2.toml"), &file(SCHEME));
        let svg = canvas.svg();
        for (cpu, told) in [
            (0, ["pc1[0] (labels)"].as_slice()),
            (1, &["pc1[0] (gathers parents)"]),
            (2, &["pc2[0]", "c2[0]"]),
            (50, &["pc2[1]", "c2[1]"]),
        ] {
            for told in told {
                assert!(svg.contains(&format!("<title>cpu {cpu}: {told}</title>")), "{cpu} {told}");
            }
        }
        assert!(svg.contains("<title>cpu 38: in the cpuset of pc1[0], in no unit</title>"));
        let legend = "the idle thread of a core whose other thread is used";
        assert!(canvas.texts().iter().all(|(text, _)| text != legend));
        let (_, large) = draw(LARGE, "[[processors.pc1]]\ncgroup.cpuset = \"0-7,192-199\"\n");
        let svg = large.svg();
        assert!(svg.contains("<title>cpu 192: idle thread of a core of pc1[0]</title>"));
        assert!(svg.contains("<title>cpu 8: free</title>"));
        assert!(large.texts().iter().any(|(text, _)| text == legend));
        // The one lock of each pair, and the GPU that it is for.
        for name in ["lock gpu1, one task at a time:", "GPU 0, 10 GiB, node 0", "socket 1"] {
            assert!(canvas.texts().iter().any(|(text, _)| text == name), "{name}");
        }
    }

    /// Two sockets of four nodes: each executor of PC1 has a colour of its own.
    #[test]
    fn executors_of_eight_nodes_have_eight_colours() {
        let nodes: Vec<_> = (0..8)
            .map(|node| {
                format!(
                    "{{ id = {node}, socket = {}, cpus = \"{}-{}\" }}",
                    node / 4,
                    node * 4,
                    node * 4 + 3
                )
            })
            .collect();
        let machine = format!(
            "name = \"NPS4\"\nmemory = \"1TiB\"\ncores_per_l3 = 4\nnuma_nodes = [{}]\n",
            nodes.join(", ")
        );
        let config: String = (0..8)
            .map(|node| {
                let (first, last) = (node * 4, node * 4 + 3);
                format!("[[processors.pc1]]\ncgroup.cpuset = \"{first}-{last}\"\n")
            })
            .collect();
        check(&machine, &config);
        let colours: std::collections::BTreeSet<_> =
            (0..8).map(|index| of_executor(StageName::Pc1, index)).collect();
        assert_eq!(colours.len(), 8);
    }

    /// The picture in the documentation: what is proposed in the place of scheme B. It is written
    /// anew when it is not what is drawn.
    #[test]
    fn the_picture_in_the_documentation_is_the_one_that_is_drawn() {
        let machine = hardware::load(&root().join("crates/seal-plan/machines/epyc7642x2.toml"));
        let machine = machine.expect("a machine of ours");
        let wish = crate::propose::Wish {
            sharing: Some(crate::propose::GpuSharing::Shared),
            pc1: Some(28),
            ..crate::propose::Wish::default()
        };
        let proposal = crate::propose::propose(&machine, &wish).expect("there is one");
        let scheme = Scheme::of(&proposal.config, &machine, SectorSize::GIB_32);
        let drawn = draw_machine(&machine, &scheme, "Scheme B").svg();
        let path = root().join("docs/pictures/scheme-b.svg");
        if std::fs::read_to_string(&path).unwrap_or_default() != drawn {
            std::fs::write(&path, drawn).expect("writable");
            panic!("{} was stale and is written anew; look at it and commit it", path.display());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_machine_is_legible(
            nodes in 1_u32..5,
            groups in 1_u32..6,
            cores in 1_u32..20,
            threads in 1_u32..3,
            gpus in 0_u32..9,
            name in "\\PC{0,80}",
            executors in prop::collection::vec((0_u32..20, 1_u32..20), 0..9),
        ) {
            let per_node = groups * cores;
            let second = nodes * per_node;
            let list = (0..nodes).map(|node| {
                let first = node * per_node;
                let mut cpus = format!("{first}-{}", first + per_node - 1);
                if threads == 2 {
                    cpus.push_str(&format!(",{}-{}", second + first, second + first + per_node - 1));
                }
                format!("{{ id = {node}, cpus = \"{cpus}\" }}")
            });
            let list: Vec<_> = list.collect();
            let gpus = (0..gpus).map(|at| {
                let node = if at % 3 == 0 { String::new() } else { format!(", numa_node = {}", at % nodes) };
                format!("{{ index = {at}, model = \"some GPU\"{node} }}")
            });
            let gpus: Vec<_> = gpus.collect();
            let name = toml::Value::String(name);
            let machine = format!(
                "name = {name}\nmemory = \"1TiB\"\ncores_per_l3 = {cores}\n\
                 threads_per_core = {threads}\nnuma_nodes = [{}]\ngpus = [{}]\n",
                list.join(", "), gpus.join(", ")
            );
            let mut config = "[processors]\next_locks = { \"a lock\" = 2, b = 1 }\n".to_owned();
            for (at, (first, count)) in executors.iter().enumerate() {
                let stage = ["pc1", "pc2", "c2"][at % 3];
                config.push_str(&format!(
                    "[[processors.{stage}]]\ncgroup.cpuset = \"{first}-{}\"\nlocks = [\"b\"]\n\
                     envs = {{ CUDA_VISIBLE_DEVICES = \"{}\", FIL_PROOFS_USE_GPU_TREE_BUILDER = \"1\" }}\n",
                    first + count, at % 2
                ));
            }
            check(&machine, &config);
        }
    }
}

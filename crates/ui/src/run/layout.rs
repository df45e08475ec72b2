//! Where the nodes of a graph stand in the ribbon: columns by how far a node is from the sentence.

use inkling_engine::graph::{Graph, spec::Input};

/// A place in the ribbon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    /// Column; the sentence has 0.
    pub(crate) column: usize,
    /// Middle of the node, in rows from the top.
    pub(crate) row: f64,
}

/// The ribbon's plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    /// Columns, the sentence's among them.
    pub(crate) columns: usize,
    /// Rows of the fullest column.
    pub(crate) rows: usize,
    /// Place of the sentence.
    pub(crate) sentence: Place,
    /// Place of each node, in the order of the graph.
    pub(crate) nodes: Vec<Place>,
    /// From where to where texts flow.
    pub(crate) edges: Vec<Edge>,
}

/// A text's way from one place to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edge {
    /// Where it comes from; `None` is the sentence.
    pub(crate) source: Option<usize>,
    /// The node that it feeds.
    pub(crate) target: usize,
}

impl Layout {
    /// The plan of a checked graph, which has no cycle.
    pub(crate) fn of(graph: &Graph) -> Layout {
        let columns_of: Vec<usize> = (0..graph.nodes.len()).map(|node| column(graph, node)).collect();
        let columns = columns_of.iter().max().map_or(1, |last| last + 1);
        let in_column = |column| columns_of.iter().filter(move |&&other| other == column).count();
        let rows = (1..columns).map(in_column).max().unwrap_or(1);
        let middle = rows as f64 / 2.0;
        let place = |node: usize| {
            let column = columns_of[node];
            let above = columns_of[..node].iter().filter(|&&other| other == column).count();
            let row = middle - in_column(column) as f64 / 2.0 + above as f64 + 0.5;
            Place { column, row }
        };
        let edges = graph.nodes.iter().enumerate().flat_map(|(target, node)| {
            node.inputs.iter().map(move |input| {
                let source = match input {
                    Input::Sentence => None,
                    Input::Node(source) => Some(*source),
                };
                Edge { source, target }
            })
        });
        Layout {
            columns,
            rows,
            sentence: Place { column: 0, row: middle },
            nodes: (0..graph.nodes.len()).map(place).collect(),
            edges: edges.collect(),
        }
    }
}

fn column(graph: &Graph, node: usize) -> usize {
    let after = |input: &Input| match input {
        Input::Sentence => 1,
        Input::Node(source) => column(graph, *source) + 1,
    };
    graph.nodes[node].inputs.iter().map(after).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_graph_has_two_writers_side_by_side_and_the_critic_between_them() {
        let layout = Layout::of(&Graph::default());
        assert_eq!((layout.columns, layout.rows), (3, 2));
        let place = |column, row| Place { column, row };
        assert_eq!(layout.nodes, [place(1, 0.5), place(1, 1.5), place(2, 1.0)]);
        assert_eq!(layout.edges.len(), 4);
    }

    #[test]
    fn a_writer_that_feeds_a_writer_stands_before_it() {
        let graph = Graph::parse(
            "nodes = [
                { name = 'b', task = 'generate', model = 'm', inputs = ['a', 'sentence'] },
                { name = 'a', task = 'generate', model = 'm', inputs = ['sentence'] },
            ]",
        )
        .unwrap();
        let layout = Layout::of(&graph);
        assert_eq!(layout.nodes.iter().map(|place| place.column).collect::<Vec<_>>(), [2, 1]);
        let edge = |source, target| Edge { source, target };
        assert_eq!(layout.edges, [edge(Some(1), 0), edge(None, 0), edge(None, 1)]);
    }
}

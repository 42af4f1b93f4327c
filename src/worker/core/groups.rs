//! The replicas of a worker.

use crate::shard::Group;

/// Groups by their numbers. Those are small and have few gaps, and a turn asks for its groups again and again: so they stand
/// in a table, and none is searched for.
#[derive(Debug, Default)]
pub(super) struct Groups {
    table: Vec<Option<Box<Group>>>,
}

impl Groups {
    pub(super) fn get(&self, id: u16) -> Option<&Group> {
        self.table.get(usize::from(id))?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: u16) -> Option<&mut Group> {
        self.table.get_mut(usize::from(id))?.as_deref_mut()
    }

    pub(super) fn insert(&mut self, group: Group) {
        let at = usize::from(group.id().0);
        if self.table.len() <= at {
            self.table.resize_with(at + 1, || None);
        }
        self.table[at] = Some(Box::new(group));
    }

    pub(super) fn remove(&mut self, id: u16) -> Option<Group> {
        self.table.get_mut(usize::from(id))?.take().map(|group| *group)
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.table.iter().flatten().map(Box::as_ref)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.table.iter_mut().flatten().map(Box::as_mut)
    }
}

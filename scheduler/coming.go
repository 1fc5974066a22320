package scheduler

// A node may be there before it is known what it has: its worker for this tenant
// has yet to start, which takes as long as the machine lets it. Until then the node
// may be one that holds a task, whatever the task asks for.

// comingPatience is for how many times Config.Patience a node that comes is waited
// for: with the 10 seconds that workers give, two minutes. One that has said nothing
// by then counts as one that is not there.
const comingPatience = 12

// Coming tells that the node of that name is there, and not yet what it has: a task
// that no node could ever hold of those that are known is not failed before that is
// told by PeerUp, or comingPatience is over.
func (s *Scheduler) Coming(now int64, node string) {
	s.at(now)
	if _, known := s.coming[node]; known || node == "" || node == s.node.Name || s.peers.byName[node] != nil || len(s.coming) >= MaxPeers {
		return
	}
	if s.coming == nil {
		s.coming = map[string]int64{}
	}
	s.coming[node] = s.now
}

// ComesNot tells that a node which was to come is gone.
func (s *Scheduler) ComesNot(now int64, node string) {
	s.at(now)
	delete(s.coming, node)
}

// comes reports whether a node that is coming may turn out to hold a task of such a
// placement, which may be nil.
func (s *Scheduler) comes(place *placement) bool {
	if place != nil && place.home {
		return false
	}
	for node, since := range s.coming {
		named := place == nil || place.Kind != OnNode || place.Soft || place.Node == node
		if named && s.now-since < comingPatience*s.config.Patience {
			return true
		}
	}
	return false
}

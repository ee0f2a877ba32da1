"""The control plane that `lablease up` gives a person without a cluster: etcd and kube-apiserver on loopback."""

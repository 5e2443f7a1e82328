// Command peer-injector is what one would write without this project: a mutating webhook as controller-runtime's
// documentation has it, with a manager and a defaulter, that adds an init container, a native sidecar, volumes and a
// label to a Deployment, and logs a line for each. The admission benchmark measures it beside ours.
package main

import (
	"context"
	"flag"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

type injector struct{}

func (injector) Default(ctx context.Context, object runtime.Object) error {
	deployment, ok := object.(*appsv1.Deployment)
	if !ok {
		return fmt.Errorf("expected a Deployment, and got %T", object)
	}
	log.FromContext(ctx).Info("defaulting", "name", deployment.Name)
	if _, ok := deployment.Annotations["vixens.io/backup"]; ok {
		inject(deployment)
	}
	return nil
}

func container(name, command string, memory string, mounts []corev1.VolumeMount) corev1.Container {
	no, yes := false, true
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	return corev1.Container{
		Name: name, Image: "peer:1", ImagePullPolicy: corev1.PullIfNotPresent,
		Command: []string{"peer", "agent", command},
		Args:    []string{"--workload=Deployment/app", "--volume=data:config:/config", "--destination=minio:backups/app"},
		Env: []corev1.EnvVar{field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
			field("GENERATION", "metadata.labels['pod-template-hash']")},
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "rclone-minio-config"}}}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"memory": resource.MustParse("64Mi"), "cpu": resource.MustParse("10m")},
			Limits:   corev1.ResourceList{"memory": resource.MustParse(memory), "cpu": resource.MustParse("100m")},
		},
		SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			RunAsNonRoot: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		VolumeMounts: mounts,
	}
}

func inject(deployment *appsv1.Deployment) {
	pod := &deployment.Spec.Template.Spec
	data := corev1.VolumeMount{Name: "data", MountPath: "/config"}
	work := corev1.VolumeMount{Name: "restore-volume", MountPath: "/restore"}
	vanilla := corev1.VolumeMount{Name: "vanilla-config", MountPath: "/defaults", ReadOnly: true}
	keys := corev1.VolumeMount{Name: "rclone-config", MountPath: "/rclone", ReadOnly: true}
	always := corev1.ContainerRestartPolicyAlways
	initial := container("init-config", "init", "256Mi", []corev1.VolumeMount{data, work, vanilla, keys})
	sidecar := container("backup-sidecar", "sidecar", "128Mi", []corev1.VolumeMount{data, work, keys})
	sidecar.RestartPolicy = &always
	pod.InitContainers = append([]corev1.Container{initial, sidecar}, pod.InitContainers...)
	optional := true
	pod.Volumes = append(pod.Volumes,
		corev1.Volume{Name: "restore-volume", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		corev1.Volume{Name: "vanilla-config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: deployment.Name + "-vanilla-config"}, Optional: &optional}}},
		corev1.Volume{Name: "rclone-config", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: "rclone-minio-config"}}})
	if deployment.Spec.Template.Labels == nil {
		deployment.Spec.Template.Labels = map[string]string{}
	}
	deployment.Spec.Template.Labels["vixens.io/backup-app"] = deployment.Name
	deployment.Annotations["vixens.io/backup-injected"] = `{"version":1}`
	deployment.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
}

func main() {
	port := flag.Int("port", 9443, "port of the webhook, on loopback")
	certificates := flag.String("certificates", "", "folder with tls.crt and tls.key")
	flag.Parse()
	log.SetLogger(zap.New())
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Metrics:       metrics.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port, CertDir: *certificates}),
	})
	if err != nil {
		panic(err)
	}
	// Served at /mutate-apps-v1-deployment.
	if err := ctrl.NewWebhookManagedBy(manager).For(&appsv1.Deployment{}).WithDefaulter(injector{}).Complete(); err != nil {
		panic(err)
	}
	if err := manager.Start(ctrl.SetupSignalHandler()); err != nil {
		panic(err)
	}
}

// Command peer-injector is what one would write without this project: a mutating webhook on controller-runtime that
// decodes a Deployment, adds an init container, a native sidecar, volumes and a label, and answers with the patch.
// The admission benchmark measures it beside ours.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

type injector struct {
	decoder admission.Decoder
}

func (i *injector) Handle(_ context.Context, request admission.Request) admission.Response {
	deployment := &appsv1.Deployment{}
	if err := i.decoder.Decode(request, deployment); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if _, ok := deployment.Annotations["vixens.io/backup"]; !ok {
		return admission.Allowed("")
	}
	inject(deployment)
	raw, err := json.Marshal(deployment)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, raw)
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
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port, CertDir: *certificates})
	server.Register("/mutate", &webhook.Admission{Handler: &injector{decoder: admission.NewDecoder(scheme.Scheme)}})
	if err := server.Start(ctrl.SetupSignalHandler()); err != nil {
		panic(err)
	}
}
